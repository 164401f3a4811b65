"""The lines of a file index in the order of their paths, however many there are: sorted in portions that wait on disk.

A file index is in the order of its layers. Two of them are compared as they go by once both are in the same order; so the memory
that takes is that of a portion, some 350 bytes a line.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import marshal
import tempfile
from operator import attrgetter
from typing import IO, TYPE_CHECKING

from publisher.fileindex.format import IndexedFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

PORTION = 50_000
"""Lines that are sorted at a time."""
_BATCH = 64  # lines that are read back at a time, of every portion
_path = attrgetter("path")
_columns = attrgetter("kind", "path", "mode", "uid", "gid", "size", "mtime", "content")


def by_path(lines: Iterable[IndexedFile], scratch: Path | None = None, portion: int = PORTION) -> Iterator[IndexedFile]:
    """The lines in the order of their paths' bytes.

    Args:
        lines: in any order; gone through once.
        scratch: directory for what waits, which has no name there; the system's where None.
        portion: lines held in memory.

    Raises:
        OSError: what waits cannot be written.
    """
    remaining = iter(lines)
    with contextlib.ExitStack() as stack:
        waiting = []
        while len(held := sorted(itertools.islice(remaining, portion), key=_path)) == portion:
            file = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
            _write(held, file)
            waiting.append(_read(file))
        yield from heapq.merge(*waiting, held, key=_path)


def _write(lines: Sequence[IndexedFile], file: IO[bytes]) -> None:
    for start in range(0, len(lines), _BATCH):
        marshal.dump([_columns(line) for line in lines[start : start + _BATCH]], file)
    file.seek(0)


def _read(file: IO[bytes]) -> Iterator[IndexedFile]:
    with contextlib.suppress(EOFError):
        while True:
            for columns in marshal.load(file):  # noqa: S302 - written by us just now, into a file that nobody else has
                yield IndexedFile(*columns)
