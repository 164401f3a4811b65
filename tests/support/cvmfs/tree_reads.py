"""Counts what this process opens and lists, so that a walk through a published tree shows."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVENTS = {"open": "opened", "os.scandir": "listed", "os.listdir": "listed"}
_active: list[Counter[str]] = []


@functools.cache
def _install() -> None:
    """Install the hook, which cannot be removed again."""

    def count(event: str, _arguments: tuple[object, ...]) -> None:
        if _active and event in _EVENTS:
            _active[-1][_EVENTS[event]] += 1

    sys.addaudithook(count)


@contextlib.contextmanager
def counted_reads() -> Iterator[Counter[str]]:
    """Count during the block how many files and directories are ``opened``, and how many directories are ``listed``."""
    _install()
    _active.append(Counter())
    try:
        yield _active[-1]
    finally:
        _active.pop()
