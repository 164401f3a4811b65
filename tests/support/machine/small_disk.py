"""A small disk, for tests in which it is full: a tmpfs, which only root may mount."""

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
    """Mount one at ``place``, which is made; skips the test, and says loudly ``what`` was not tested, where that cannot be.

    ``options``: of tmpfs(5), as ``size=2m``.
    """
    place.mkdir(mode=0o700, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip(f"NOT TESTED: {what}; it takes root, and the right to mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
