"""External sorting of a file index by path: in portions that are stored on disk and merged.

A file index is in the order of the image's layers. Two indexes in the same order can be compared as streams, so memory is limited
to one portion, some 350 bytes a line.
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
"""Lines that are sorted in memory at a time."""
_BATCH = 64  # lines of each portion that are read back at a time
_path = attrgetter("path")
_columns = attrgetter("kind", "path", "mode", "uid", "gid", "size", "mtime", "content", "xattrs")


def by_path(lines: Iterable[IndexedFile], scratch: Path | None = None, portion: int = PORTION) -> Iterator[IndexedFile]:
    """Yield lines in the order of their paths' bytes.

    Args:
        lines: lines in any order; iterated once.
        scratch: directory for the (unnamed) temporary files, None for the system's.
        portion: number of lines in memory.

    Raises:
        OSError: a temporary file cannot be written.
    """
    remaining = iter(lines)
    with contextlib.ExitStack() as stack:
        stored = []
        while len(lines_in_memory := sorted(itertools.islice(remaining, portion), key=_path)) == portion:
            file = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
            _write(lines_in_memory, file)
            stored.append(_read(file))
        yield from heapq.merge(*stored, lines_in_memory, key=_path)


def _write(lines: Sequence[IndexedFile], file: IO[bytes]) -> None:
    for start in range(0, len(lines), _BATCH):
        marshal.dump([_columns(line) for line in lines[start : start + _BATCH]], file)
    file.seek(0)


def _read(file: IO[bytes]) -> Iterator[IndexedFile]:
    with contextlib.suppress(EOFError):
        while True:
            for columns in marshal.load(file):  # noqa: S302 - this process wrote it, into a file without a name
                yield IndexedFile(*columns)
