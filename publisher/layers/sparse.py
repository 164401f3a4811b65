"""The maps of sparse files: GNU's old format and the three PAX formats (GNU tar manual, "Storing Sparse Files").

Every map becomes the segments of data in order, ``(offset, length)`` in bytes, and the size of the whole file. Go's reader,
and with it Apptainer, fills the holes, so that is what comes out of a sparse file here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from publisher.errors import LayerError
from publisher.layers.header import BLOCK, Pax, number

if TYPE_CHECKING:
    from collections.abc import Callable

Segments = list[tuple[int, int]]
_ENTRY = 24  # bytes of one entry in the old format: offset and length, 12 each
_MOST = 100_000  # segments of one file


def gnu_map(block: bytes, extension: Callable[[int], bytes]) -> tuple[Segments, int, int]:
    """The old format (type ``S``): four entries in the header, more in extension blocks behind it.

    Args:
        block: the header block.
        extension: gives the n-th block after the header.

    Returns:
        segments, size of the whole file, bytes of extension blocks.
    """
    segments = _entries(block[386:482])
    size = number(block[483:495])
    more, index = block[482], 0
    while more:
        extra = extension(index)
        segments += _entries(extra[:504])
        more, index = extra[504], index + 1
        _bounded(segments)
    return _checked(segments, size), size, index * BLOCK


def pax_map(pax: Pax, data: Callable[[int], bytes]) -> tuple[Segments, int] | None:
    """Formats 0.0, 0.1 and 1.0, None where the records name no sparse file that Go knows.

    Args:
        pax: the member's records (the pairs of 0.0 have become the map of 0.1).
        data: takes that many bytes off the front of the member's data (format 1.0 keeps its map there).
    """
    version = pax_version(pax)
    if version is None:
        return None
    size = _int(pax.get(b"GNU.sparse.size") or pax.get(b"GNU.sparse.realsize") or b"")
    if version == 1:
        return _version_one(size, data)
    listed = pax.get(b"GNU.sparse.map")
    values = [_int(text) for text in listed.split(b",")] if listed else []
    if len(values) % 2:
        _bad()
    return _checked(list(zip(values[::2], values[1::2], strict=True)), size), size


def pax_version(pax: Pax) -> int | None:
    """0 for formats 0.0 and 0.1, 1 for 1.0, None for a file that is not sparse or in no format that Go knows."""
    version = (pax.get(b"GNU.sparse.major", b""), pax.get(b"GNU.sparse.minor", b""))
    if version == (b"1", b"0"):
        return 1
    if version in ((b"0", b"0"), (b"0", b"1")) or (version == (b"", b"") and pax.get(b"GNU.sparse.map")):
        return 0
    return None


def _version_one(size: int, data: Callable[[int], bytes]) -> tuple[Segments, int]:
    text = data(BLOCK)
    lines = text.split(b"\n")
    wanted = 1 + 2 * _int(lines[0])
    if wanted > 2 * _MOST:
        _bad()
    while len(lines) <= wanted:
        text += data(BLOCK)
        lines = text.split(b"\n")
    values = [_int(line) for line in lines[1:wanted]]
    return _checked(list(zip(values[::2], values[1::2], strict=True)), size), size


def _entries(area: bytes) -> Segments:
    found = []
    for start in range(0, len(area) - _ENTRY + 1, _ENTRY):
        entry = area[start : start + _ENTRY]
        if not entry.strip(b"\0"):
            break
        found.append((number(entry[:12]), number(entry[12:])))
    return found


def _checked(segments: Segments, size: int) -> Segments:
    if size < 0:
        _bad()
    end = 0
    for offset, length in segments:
        if offset < end or length < 0 or offset + length > size:
            _bad()
        end = offset + length
    _bounded(segments)
    return segments


def _bounded(segments: Segments) -> None:
    if len(segments) > _MOST:
        _bad()


def _int(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:  # noqa: PLR2004 - 64 bits
        raise LayerError("a sparse file in the layer has a map that is no map")
    return int(text)


def _bad() -> NoReturn:
    raise LayerError("a sparse file in the layer has a map that is no map")
