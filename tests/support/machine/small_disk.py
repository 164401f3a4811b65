"""A small disk for tests that fill it: a tmpfs, which only root may mount."""

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
