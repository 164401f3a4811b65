"""Small disks for tests that fill them: a tmpfs, or an ext4 in a file; only root may mount either."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def small_disk(place: Path, options: str, what: str) -> Iterator[Path]:
    """Create ``place`` and mount a tmpfs there; skip the test, naming ``what`` was not tested, if that is not possible.

    ``options`` are those of tmpfs(5), such as ``size=2m``.
    """
    place.mkdir(mode=0o700, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip(f"NOT TESTED: {what}; this needs root and the right to mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def loop_disk(place: Path, image: Path, size: int, what: str) -> Iterator[Path]:
    """Mount a new ext4 of ``size`` bytes, kept in the file ``image``, at ``place``, as :func:`small_disk` does."""
    place.mkdir(exist_ok=True, parents=True)
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    if os.geteuid() != 0 or subprocess.run(["mount", "-o", "loop", image, place], check=False).returncode != 0:
        pytest.skip(f"NOT TESTED: {what}; this needs root and a loop device")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False, stderr=subprocess.DEVNULL)  # a test may have done it
