"""The table of extended attributes of a squashfs, as mksquashfs 4.5.1 writes it.

Files with the same attributes share an entry. A value is written once: where another one is the same, or in a list that is
large, the list refers to it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from publisher.squashfs.metadata import MetadataWriter, placed_table

if TYPE_CHECKING:
    from collections.abc import Callable

    Xattrs = tuple[tuple[bytes, bytes], ...]

NO_XATTRS = 0xFFFFFFFF
PREFIXES = (b"user.", b"trusted.", b"security.")
"""The beginnings of the names that a squashfs knows, by their numbers."""
_ELSEWHERE = 0x100  # added to the number of a name whose value is elsewhere
_REFERENCE = struct.Struct("<Q")
_NAME, _VALUE, _ENTRY = struct.Struct("<HH"), struct.Struct("<I"), struct.Struct("<QII")
_HEADER = struct.Struct("<QII")
_INLINE = 128  # bytes of a value that is in its list
_LIST = 65536  # bytes of a list, or else smaller values are written elsewhere too
_UNKNOWN = -1  # the place of a value that is not written yet


class XattrTable:
    """The table of extended attributes.

    Args:
        compress: returns a metadata block compressed, None if it would not become smaller.
    """

    def __init__(self, compress: Callable[[bytes], bytes | None]) -> None:
        self._compress = compress
        self._table = MetadataWriter(compress)
        self._entries: list[tuple[int, int, int]] = []
        self._known: dict[Xattrs, int] = {}
        self._values: dict[bytes, int] = {}  # value -> where it is

    def add(self, xattrs: Xattrs) -> int:
        """Return the number of an entry with these attributes (names with their prefixes, values), in this order."""
        number = self._known.get(xattrs)
        if number is None:
            number = self._known[xattrs] = len(self._entries)
            self._entries.append(self._write(xattrs))
        return number

    def finish(self, start: int) -> tuple[bytes, int | None]:
        """Return the table as it is on the disk, and its place; b"" and None if nobody has attributes.

        Args:
            start: offset in the squashfs where it will be.
        """
        if not self._entries:
            return b"", None
        lists = self._table.finish()
        entries = b"".join(_ENTRY.pack(*entry) for entry in self._entries)
        header = _HEADER.pack(start, len(self._entries), 0)
        table, place = placed_table(entries, start + len(lists), self._compress, header)
        return lists + table, place

    def _write(self, xattrs: Xattrs) -> tuple[int, int, int]:
        """Write a list, after those of its values that are elsewhere; return its entry."""
        limit = _inline_limit(xattrs)
        places: list[int | None] = []  # of the values that are elsewhere
        first = []  # whether a value was not known before
        for _, value in xattrs:
            first.append(value not in self._values)
            elsewhere = len(value) > limit or (len(value) >= _REFERENCE.size and not first[-1])
            places.append(self._values.setdefault(value, _UNKNOWN) if elsewhere else None)
            if len(value) >= _REFERENCE.size:
                self._values.setdefault(value, _UNKNOWN)
        for number, (_, value) in enumerate(xattrs):
            if places[number] == _UNKNOWN:
                places[number] = self._write_value(value, remember=first[number])
        begin = self._place()
        for (name, value), place, is_first in zip(xattrs, places, first, strict=True):
            kind, rest = _split(name)
            self._append(_NAME.pack(kind | (_ELSEWHERE if place is not None else 0), len(rest)) + rest)
            if place is None:
                self._write_value(value, remember=is_first and len(value) >= _REFERENCE.size)
            else:
                self._append(_VALUE.pack(_REFERENCE.size) + _REFERENCE.pack(place))
        return begin, len(xattrs), sum(len(name) + 1 + len(value) for name, value in xattrs)

    def _write_value(self, value: bytes, *, remember: bool) -> int:
        place = self._place()
        self._append(_VALUE.pack(len(value)) + value)
        if remember:
            self._values[value] = place
        return place

    def _place(self) -> int:
        self._table.pack()
        block, offset = self._table.place
        return block << 16 | offset

    def _append(self, data: bytes) -> None:
        self._table.pack()
        self._table.append(data)


def _split(name: bytes) -> tuple[int, bytes]:
    for number, prefix in enumerate(PREFIXES):
        if name.startswith(prefix):
            return number, name[len(prefix) :]
    raise AssertionError(f"an extended attribute whose name begins otherwise: {name!r}")


def _inline_limit(xattrs: Xattrs) -> int:
    """Return how long a value may be that is in its list."""
    limit = _INLINE
    while limit > _REFERENCE.size:
        sizes = (_REFERENCE.size if len(value) > limit else len(value) for _, value in xattrs)
        names = sum(len(_split(name)[1]) for name, _ in xattrs)
        if (_NAME.size + _VALUE.size) * len(xattrs) + names + sum(sizes) <= _LIST:
            break
        limit = max(limit // 2, _REFERENCE.size)
    return limit
