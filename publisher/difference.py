"""What changed between two builds of an image: their file indexes compared, by content and never by size and time. Pure.

One of the two is held in memory as a digest for each path (some 150 bytes an entry); the other goes by.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from publisher.layers.files import IndexedFile

_KINDS = {"f": "file", "h": "hard link", "l": "symbolic link", "d": "directory", "p": "fifo"}
_ATTRIBUTES = ("kind", "mode", "uid", "gid", "size", "mtime", "content")


@dataclass(frozen=True)
class Change:
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
    before: Callable[[], Iterable[IndexedFile]], after: Callable[[], Iterable[IndexedFile]], *, times: bool = False
) -> Iterator[Change]:
    """The paths that differ, in the order of their bytes.

    Args:
        before: gives the lines of the older index; asked twice.
        after: gives those of the newer one.
        times: a path whose modification time alone differs counts as well.
    """
    seen = {line.path: _fingerprint(line, times=times) for line in before()}
    new: dict[bytes, IndexedFile] = {}
    for line in after():
        if seen.get(line.path) == _fingerprint(line, times=times):
            del seen[line.path]
        else:
            new[line.path] = line
    old = {line.path: line for line in before() if line.path in seen}
    for path in sorted(old.keys() | new.keys()):
        yield Change(path, old.get(path), new.get(path))


def _shown(line: IndexedFile) -> dict[str, object]:
    values = {name: getattr(line, name) for name in _ATTRIBUTES}
    return values | {"mode": f"{line.mode:04o}", "content": line.content.decode("utf-8", "backslashreplace")}


def _fingerprint(line: IndexedFile, *, times: bool) -> bytes:
    columns = (line.kind, line.mode, line.uid, line.gid, line.size, line.content, line.mtime if times else 0)
    return hashlib.blake2b(repr(columns).encode(), digest_size=16).digest()
