"""This process's memory in huge pages: a fork copies one entry for each page, and tests fork thousands of times."""

from __future__ import annotations

import ctypes
from pathlib import Path

_SIZE = 2 << 20
_MADV_COLLAPSE = 25  # of Linux 6.1


def use_huge_pages() -> None:
    """Move the memory that this process has allocated into huge pages, where the kernel can do that."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, access, _, _, file, *name = line.split()
        if access != "rw-p" or file != "0" or name not in ([], ["[heap]"]):
            continue
        start, end = (int(address, 16) for address in addresses.split("-"))
        for address in range(-(-start // _SIZE) * _SIZE, end - _SIZE + 1, _SIZE):
            madvise(address, _SIZE, _MADV_COLLAPSE)  # a page that cannot be moved stays as it is
