"""Snapshots of trees, to compare them, and a private umask."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def snapshot(root: Path, without: str = ".transaction") -> dict[str, tuple[int, bytes]]:
    """Return every path below ``root`` with its type and mode, and a file's bytes or a link's target."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if name.parts[0] != without:
            mode = path.lstat().st_mode
            content = str(path.readlink()).encode() if stat.S_ISLNK(mode) else path.read_bytes() if stat.S_ISREG(mode) else b""
            found[str(name)] = (mode, content)
    return found


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    """Set a umask by which new files are private."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
