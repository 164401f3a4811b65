"""The maps of sparse files: GNU's old format and the three PAX formats (GNU tar manual, "Storing Sparse Files").

Every map is returned as the data segments in order, ``(offset, length)`` in bytes, and the size of the whole file. Holes are
filled in the output, as Go's reader (and so Apptainer) fills them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from publisher.errors import LayerError
from publisher.layers.header import BLOCK, Pax, parse_decimal, parse_number

if TYPE_CHECKING:
    from collections.abc import Callable

Segments = list[tuple[int, int]]
_GNU = b"ustar  \0"
_ENTRY = 24  # bytes of one entry in the old format: offset and length, 12 each
_MAX_SEGMENTS = 100_000  # of one file


def gnu_map(block: bytes, extension: Callable[[int], bytes]) -> tuple[Segments, int, int]:
    """Parse the old GNU format (type ``S``): four entries in the header, further ones in the extension blocks that follow it.

    Args:
        block: the header block.
        extension: returns the n-th block after the header.

    Returns:
        The segments, the size of the whole file, and the bytes of extension blocks.

    Raises:
        LayerError: the map is invalid.
    """
    if block[257:265] != _GNU:
        raise LayerError("a sparse file in the layer has another format than GNU tar's")  # star has another map there
    segments = _parse_entries(block[386:482])
    size = parse_number(block[483:495])
    more, index = block[482], 0
    while more:
        extra = extension(index)
        segments += _parse_entries(extra[:504])
        more, index = extra[504], index + 1
        _check_count(segments)
    return _checked(segments, size), size, index * BLOCK


def pax_map(pax: Pax, stated: int, data: Callable[[int], bytes]) -> tuple[Segments, int] | None:
    """Parse PAX formats 0.0, 0.1 and 1.0.

    Args:
        pax: the member's records (the pairs of format 0.0 were converted to the map of 0.1).
        stated: the size of the whole file where no record has it.
        data: removes that many bytes from the front of the member's data and returns them (format 1.0 has its map there).

    Returns:
        The segments and the size of the whole file; None where the records do not describe a sparse file that Go supports.

    Raises:
        LayerError: the map is invalid.
    """
    version = pax_version(pax)
    if version is None:
        return None
    text = pax.get(b"GNU.sparse.size") or pax.get(b"GNU.sparse.realsize")
    size = _parse_int(text) if text else stated
    if version == 1:
        return _parse_version_one(size, data)
    text = pax.get(b"GNU.sparse.map")
    values = [_parse_int(value) for value in text.split(b",")] if text else []
    if len(values) != 2 * _parse_int(pax.get(b"GNU.sparse.numblocks", b"")):
        _raise_invalid()
    return _checked(list(zip(values[::2], values[1::2], strict=True)), size), size


def pax_version(pax: Pax) -> int | None:
    """Return 0 for formats 0.0 and 0.1, 1 for 1.0, None for files that are not sparse or in a format that Go does not support."""
    version = (pax.get(b"GNU.sparse.major", b""), pax.get(b"GNU.sparse.minor", b""))
    if version == (b"1", b"0"):
        return 1
    if version in ((b"0", b"0"), (b"0", b"1")) or (version == (b"", b"") and pax.get(b"GNU.sparse.map")):
        return 0
    return None


def _parse_version_one(size: int, data: Callable[[int], bytes]) -> tuple[Segments, int]:
    text = data(BLOCK)
    while b"\n" not in text:
        text += data(BLOCK)
    lines = text.split(b"\n")
    line_count = 1 + 2 * _parse_int(lines[0])
    if not 0 < line_count <= 2 * _MAX_SEGMENTS:
        _raise_invalid()
    while len(lines) <= line_count:
        text += data(BLOCK)
        lines = text.split(b"\n")
    values = [_parse_int(line) for line in lines[1:line_count]]
    return _checked(list(zip(values[::2], values[1::2], strict=True)), size), size


def _parse_entries(area: bytes) -> Segments:
    segments = []
    for start in range(0, len(area) - _ENTRY + 1, _ENTRY):
        entry = area[start : start + _ENTRY]
        if not entry[0]:
            break
        segments.append((parse_number(entry[:12]), parse_number(entry[12:])))
    return segments


def _checked(segments: Segments, size: int) -> Segments:
    """Return the segments if they are in order, do not overlap and lie within the file."""
    if size < 0:
        _raise_invalid()
    end = 0
    for offset, length in segments:
        if offset < end or length < 0 or offset + length > size:
            _raise_invalid()
        end = offset + length
    _check_count(segments)
    return segments


def _check_count(segments: Segments) -> None:
    if len(segments) > _MAX_SEGMENTS:
        _raise_invalid()


def _parse_int(text: bytes) -> int:
    try:
        return parse_decimal(text)
    except LayerError:
        _raise_invalid()


def _raise_invalid() -> NoReturn:
    raise LayerError("a sparse file in the layer has an invalid map of its data")
