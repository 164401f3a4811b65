"""The changes between two builds of an image, found by comparing the content hashes in their file indexes.

Builds of one image have most of their lines in the same order, so lines that are in both are dropped as the two are read side by
side. What is left is compared in the order of its paths (:mod:`publisher.fileindex.external_sort`), so that memory does not grow
with the size of the indexes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from publisher.fileindex.external_sort import by_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from publisher.fileindex.format import IndexedFile

    Ordered = Callable[[Iterable[IndexedFile]], Iterator[IndexedFile]]

T = TypeVar("T")
_KINDS = {"f": "file", "h": "hard link", "l": "symbolic link", "d": "directory", "p": "fifo"}
_ABSENT = object()
_ATTRIBUTES = ("kind", "mode", "uid", "gid", "size", "mtime", "content", "xattrs")
_MOST_WAITING = 20_000  # lines of both indexes that may wait in memory for the same line of the other


@dataclass(frozen=True)
class FileChange:
    """A path that differs between two indexes.

    Attributes:
        path: the path from the root of the tree.
        before: its line in the older index, None if it is new.
        after: its line in the newer index, None if it was deleted.
    """

    path: bytes
    before: IndexedFile | None
    after: IndexedFile | None

    @property
    def sign(self) -> str:
        """The kind of change: ``+`` new, ``-`` deleted, ``~`` changed."""
        if self.before is None:
            return "+"
        return "-" if self.after is None else "~"

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes that changed, for a path that is in both indexes."""
        if self.before is None or self.after is None:
            return ()
        return tuple(name for name in _ATTRIBUTES if getattr(self.before, name) != getattr(self.after, name))

    def __str__(self) -> str:
        """Return a line for people."""
        path = self.path.decode("utf-8", "backslashreplace")
        line = self.after or self.before
        if line is None:
            raise AssertionError("a change has at least one side")
        kind = _KINDS.get(line.kind, line.kind)
        size = f", {line.size} bytes" if line.kind == "f" else ""
        changed = f": {', '.join(self.attributes)}" if self.attributes else ""
        return f"{self.sign} {path} ({kind}{size}){changed}"

    def to_json(self) -> dict[str, object]:
        """Return a JSON object; bytes of a path that are not UTF-8 are escaped in hexadecimal."""
        sides = {"before": self.before, "after": self.after}
        lines = {name: None if line is None else _line_json(line) for name, line in sides.items()}
        return {
            "path": self.path.decode("utf-8", "backslashreplace"),
            "change": self.sign,
            "what": list(self.attributes),
            **lines,
        }


def difference(
    before: Iterable[IndexedFile], after: Iterable[IndexedFile], *, times: bool = False, ordered: Ordered = by_path
) -> Iterator[FileChange]:
    """Yield the paths that differ, in the order of their bytes.

    Args:
        before: the lines of the older index; iterated once.
        after: the lines of the newer index; iterated once.
        times: report paths of which only the modification time differs, too.
        ordered: sorts lines by path, like :func:`publisher.fileindex.external_sort.by_path`.

    Raises:
        OSError: the temporary files of the sorting cannot be written.
    """
    olds, news = map(ordered, without_common(before, after))
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.path < new.path):
            yield FileChange(old.path, old, None)  # type: ignore[union-attr]  # one of the two is a line
            old = next(olds, None)
        elif old is None or new.path < old.path:
            yield FileChange(new.path, None, new)
            new = next(news, None)
        else:
            if _compared(old, times=times) != _compared(new, times=times):
                yield FileChange(new.path, old, new)
            old, new = next(olds, None), next(news, None)


def without_common(before: Iterable[T], after: Iterable[T]) -> tuple[Iterable[T], Iterable[T]]:
    """Return the lines of two indexes without those that are in both, as far as they stand near each other.

    Args:
        before: the lines of one, parsed or as they are written, but never None.
        after: those of the other.
    """
    olds, news = iter(before), iter(after)
    waiting_old: dict[T, None] = {}
    waiting_new: dict[T, None] = {}
    for old, new in itertools.zip_longest(olds, news):
        if old == new:
            continue
        if old is not None and waiting_new.pop(old, _ABSENT) is _ABSENT:
            waiting_old[old] = None
        if new is not None and waiting_old.pop(new, _ABSENT) is _ABSENT:
            waiting_new[new] = None
        if len(waiting_old) + len(waiting_new) > _MOST_WAITING:
            break
    return itertools.chain(waiting_old, olds), itertools.chain(waiting_new, news)


def _line_json(line: IndexedFile) -> dict[str, object]:
    values = {name: getattr(line, name) for name in _ATTRIBUTES}
    texts = {"content": line.content.decode("utf-8", "backslashreplace"), "xattrs": line.xattrs.decode()}
    return values | {"mode": f"{line.mode:04o}"} | texts


def _compared(line: IndexedFile, *, times: bool) -> tuple[object, ...]:
    return (line.kind, line.mode, line.uid, line.gid, line.size, line.content, line.xattrs, line.mtime if times else 0)
