"""The contents of the files of one layer, read once from its beginning to its end.

Where a content lies follows from the header index: it ends, padded, where the next entry begins. That holds for the entries whose
header blocks are usual; the others' headers are parsed once more, which also gives what the index does not have: the values of
extended attributes, and the segments of a sparse file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from publisher.errors import LayerError
from publisher.layers.header import padded
from publisher.layers.scan import Scanner

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.layers.member import Member
    from publisher.layers.sparse import Segments
    from publisher.layers.stream.layer_stream import LayerStream

    Content = Callable[[int, int], bytes]
    """Returns a part of a content, from a position on and of a size; called for one part after the other."""
    Xattrs = tuple[tuple[bytes, bytes], ...]

_PORTION = 1 << 20
_HEADERS = 4096  # bytes that are read at a time where only headers are parsed
_XATTR = b"SCHILY.xattr."


class Place(NamedTuple):
    """Where an entry is in the stream of its layer.

    Attributes:
        offset: offset of its first header block, bytes.
        end: offset of the next entry's; None for the last entry.
        is_usual: its headers need not be parsed (``Member.reusable``).
    """

    offset: int
    end: int | None
    is_usual: bool


class LayerContents:
    """A reader of contents, in the order of the stream.

    Args:
        stream: the stream of the layer, at its beginning.
    """

    def __init__(self, stream: LayerStream) -> None:
        self._read = stream.read
        self._copy = stream.copy
        self._data = b""
        self._base = 0  # offset of the data in the stream

    def of(self, place: Place, size: int) -> Content:
        """Return the content of an entry; nothing is read unless it is asked for, which has to be before that of a later entry.

        Args:
            place: where the entry is.
            size: bytes of its content, as its index says.

        Raises:
            LayerError: raised by the content: the layer differs from its index.
        """
        if place.is_usual and place.end is not None:
            begin = place.end - padded(size)
            return lambda position, count: self._take(begin + position, count)
        found: list[Content] = []

        def content(position: int, count: int) -> bytes:
            if not found:
                found.append(self._found(place, size))
            return found[0](position, count)

        return content

    def xattrs(self, place: Place) -> Xattrs:
        """Return names and values of the extended attributes of an entry, before its content is asked for.

        Raises:
            LayerError: the layer differs from its index.
        """
        member, _ = self._parsed(place)
        return tuple((key.removeprefix(_XATTR), value) for key, value in sorted(member.xattrs.items()))

    def _found(self, place: Place, size: int) -> Content:
        """Return the content of an entry, which begins behind its headers."""
        member, begin = self._parsed(place)
        if member.size != size:
            raise LayerError("the layer has other entries than when it was downloaded", hint="run again")
        if member.sparse is not None:
            return _Sparse(self._take, begin, member.sparse).content
        return lambda position, count: self._take(begin + position, count)

    def _parsed(self, place: Place) -> tuple[Member, int]:
        """Return an entry with its headers, and where its data begins."""
        scanner = Scanner(self._reader(place.offset))
        member = scanner.next_member()
        if member is None:
            raise LayerError("the layer has other entries than when it was downloaded", hint="run again")
        return member, place.offset + scanner.data_offset

    def _take(self, start: int, size: int) -> bytes:
        """Return bytes of the stream; what precedes them cannot be had any more."""
        begin = start - self._base
        if begin < 0 or begin + size > len(self._data):
            self._forward(start, size)
            begin = 0
        data = self._data[begin : begin + size]
        if len(data) < size:
            raise LayerError("the layer is shorter than when it was downloaded", hint="run again")
        return data

    def _reader(self, start: int) -> Callable[[int], bytes]:
        """Return a ``read(n)`` from an offset on, after which everything from there on can still be had."""
        position = start

        def read(size: int) -> bytes:
            nonlocal position
            count = min(size, _HEADERS)
            if start < self._base or position + count > self._base + len(self._data):
                self._forward(start, position + count - start)
            data = self._data[position - self._base : position - self._base + count]
            position += len(data)
            return data

        return read

    def _forward(self, start: int, size: int) -> None:
        """Read on until there are bytes from ``start`` on, or the stream ends; what precedes them is discarded.

        Raises:
            LayerError: the bytes were discarded before.
        """
        if start < self._base:
            raise LayerError("an entry of the layer is not where it was when the layer was downloaded", hint="run again")
        end = self._base + len(self._data)
        kept = self._data[start - self._base :] if start < end else b""
        if start > end:
            self._skip(start - end)
        parts, have = [kept], len(kept)
        while have < size and (more := self._read(_PORTION)):
            parts.append(more)
            have += len(more)
        self._data = b"".join(parts)
        self._base = start

    def _skip(self, count: int) -> None:
        if self._copy is not None:
            self._copy.skip(count)
            return
        while count and (data := self._read(min(count, _PORTION))):
            count -= len(data)


class _Sparse:
    """The content of a sparse file, with its holes.

    Args:
        take: returns bytes of the stream.
        begin: offset of the segments in the stream.
        segments: offset and length of each, in the content.
    """

    def __init__(self, take: Content, begin: int, segments: Segments) -> None:
        self._take = take
        self._stored = begin
        self._segments = [segment for segment in segments if segment[1]]
        self._next = 0

    def content(self, position: int, size: int) -> bytes:
        """Return a part of the content."""
        end, parts = position + size, []
        while position < end:
            if self._next == len(self._segments):
                parts.append(bytes(end - position))
                break
            offset, length = self._segments[self._next]
            if position < offset:
                portion = min(end, offset) - position
                parts.append(bytes(portion))
            else:
                portion = min(end, offset + length) - position
                parts.append(self._take(self._stored, portion))
                self._stored += portion
                self._next += position + portion == offset + length
            position += portion
        return b"".join(parts)
