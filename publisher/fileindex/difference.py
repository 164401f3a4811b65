"""What changed between two builds of an image: their file indexes compared, by content and never by size and time. Pure.

Both go by in the order of their paths (:mod:`publisher.fileindex.external_sort`), so that memory does not grow with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.fileindex.external_sort import by_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from publisher.fileindex.format import IndexedFile

    Ordered = Callable[[Iterable[IndexedFile]], Iterator[IndexedFile]]

_KINDS = {"f": "file", "h": "hard link", "l": "symbolic link", "d": "directory", "p": "fifo"}
_ATTRIBUTES = ("kind", "mode", "uid", "gid", "size", "mtime", "content")


@dataclass(frozen=True)
class FileChange:
    """One path that differs.

    Attributes:
        path: from the root, as bytes.
        before, after: its line in either index, None where it is not there.
    """

    path: bytes
    before: IndexedFile | None
    after: IndexedFile | None

    @property
    def sign(self) -> str:
        """``+`` new, ``-`` gone, ``~`` different."""
        if self.before is None:
            return "+"
        return "-" if self.after is None else "~"

    @property
    def attributes(self) -> tuple[str, ...]:
        """What differs, of a path that is in both."""
        if self.before is None or self.after is None:
            return ()
        return tuple(name for name in _ATTRIBUTES if getattr(self.before, name) != getattr(self.after, name))

    def __str__(self) -> str:
        """A line for people."""
        path = self.path.decode("utf-8", "backslashreplace")
        there = self.after or self.before
        if there is None:
            raise AssertionError("a change has one side at least")
        kind = _KINDS.get(there.kind, there.kind)
        size = f", {there.size} bytes" if there.kind == "f" else ""
        how = f": {', '.join(self.attributes)}" if self.attributes else ""
        return f"{self.sign} {path} ({kind}{size}){how}"

    def to_json(self) -> dict[str, object]:
        """For programs; bytes of a path that are no text are shown in hexadecimal."""
        sides = {"before": self.before, "after": self.after}
        shown = {name: None if line is None else _shown(line) for name, line in sides.items()}
        return {
            "path": self.path.decode("utf-8", "backslashreplace"),
            "change": self.sign,
            "what": list(self.attributes),
            **shown,
        }


def difference(
    before: Iterable[IndexedFile], after: Iterable[IndexedFile], *, times: bool = False, ordered: Ordered = by_path
) -> Iterator[FileChange]:
    """The paths that differ, in the order of their bytes.

    Args:
        before: the lines of the older index; gone through once.
        after: those of the newer one, likewise.
        times: a path whose modification time alone differs counts as well.
        ordered: puts lines in the order of their paths: as :func:`publisher.fileindex.external_sort.by_path`.

    Raises:
        OSError: there is no room to sort in.
    """
    olds, news = ordered(before), ordered(after)
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.path < new.path):
            yield FileChange(old.path, old, None)  # type: ignore[union-attr]  # one of them is a line
            old = next(olds, None)
        elif old is None or new.path < old.path:
            yield FileChange(new.path, None, new)
            new = next(news, None)
        else:
            if _compared(old, times=times) != _compared(new, times=times):
                yield FileChange(new.path, old, new)
            old, new = next(olds, None), next(news, None)


def _shown(line: IndexedFile) -> dict[str, object]:
    values = {name: getattr(line, name) for name in _ATTRIBUTES}
    return values | {"mode": f"{line.mode:04o}", "content": line.content.decode("utf-8", "backslashreplace")}


def _compared(line: IndexedFile, *, times: bool) -> tuple[object, ...]:
    return (line.kind, line.mode, line.uid, line.gid, line.size, line.content, line.mtime if times else 0)
