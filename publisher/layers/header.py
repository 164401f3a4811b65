"""Tar headers as bytes: parsing of numbers and PAX records, and headers that mksquashfs accepts.

Formats: POSIX.1-2001 (pax, ustar) and GNU tar's manual (base-256 numbers, long names), parsed as Go's ``archive/tar`` does,
because Go programs made the layers, and Apptainer and umoci read them with it.
"""

from __future__ import annotations

import re

from publisher.errors import LayerError, shown
from publisher.system.tar_stream import byte_sum

BLOCK = 512
_OCTAL_LIMIT = 1 << 33  # the first number that needs more than eleven octal digits
_ID_LIMIT = 1 << 21  # the first number that needs more than seven octal digits
_NAME_WIDTH = 100  # bytes of a name or link target in ustar
_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile(rb"([+-]?)0*([0-9]{1,19})")
_INT64 = 1 << 63
_PAX_STRINGS = (b"path", b"linkpath", b"uname", b"gname")  # their values must not have a NUL byte, other values may
_SHORTEST_RECORD = 5
_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")

Pax = dict[bytes, bytes]


def padded(size: int) -> int:
    """Return ``size`` rounded up to whole blocks."""
    return (size + BLOCK - 1) & ~(BLOCK - 1)


def parse_number(field: bytes) -> int:
    """Return the value of a numeric field: octal digits, or base 256 where the first bit is set (GNU).

    Raises:
        LayerError: the field is neither, or its value needs more than 64 bits.
    """
    if not field[0] & 0x80:
        return _parse_octal(field)
    value = int.from_bytes(field, "big")
    value = value - (1 << 8 * len(field)) if field[0] & 0x40 else value & ~(0x80 << 8 * (len(field) - 1))
    if not -_INT64 <= value < _INT64:
        raise LayerError(f"a tar header in the layer has {field!r} where a number belongs")
    return value


def parse_decimal(text: bytes) -> int:
    """Return a decimal number of a PAX record or sparse map, which may have a sign and leading zeros.

    Raises:
        LayerError: it is not a number of 64 bits.
    """
    match = _DECIMAL.fullmatch(text)
    value = int(match[1] + match[2]) if match else _INT64
    if not -_INT64 <= value < _INT64:
        raise LayerError(f"a PAX record in the layer has {shown(text)} where a number belongs")
    return value


def _parse_octal(field: bytes) -> int:
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not digits:
        return 0
    if not _OCTAL.fullmatch(digits):
        raise LayerError(f"a tar header in the layer has {field!r} where a number belongs")
    return int(digits, 8)


def has_valid_checksum(block: bytes, *, signed: bool = True) -> bool:
    """Return whether a header's checksum is the sum of its bytes, with the checksum field itself counted as blanks.

    Args:
        block: the header block.
        signed: also accept a sum of signed bytes, which old tar programs wrote and Go's reader accepts.
    """
    field = block[148:156]
    try:
        stated = _parse_octal(field)
    except LayerError:
        return False
    total = byte_sum(block) - sum(field) + 8 * 32
    if total == stated:
        return True
    negative = sum(byte >= 0x80 for byte in block[:148] + block[156:])  # noqa: PLR2004 - the sign bit
    return signed and total - 256 * negative == stated


def parse_pax(body: bytes) -> Pax:
    """Return the records of an extended header; the last record of a key wins.

    The pairs of sparse format 0.0, which repeats its two keys, become the one record of format 0.1, as in Go.

    Raises:
        LayerError: a record has a wrong length, lacks its ``=`` or newline, or has a NUL byte where none may be; or sparse
            pairs are out of order.
    """
    records: Pax = {}
    pairs: list[bytes] = []
    position = 0
    while position < len(body):
        blank = body.find(b" ", position)
        end = position + (parse_decimal(body[position:blank]) if blank > position else 0)
        if not max(blank, position + _SHORTEST_RECORD - 1) < end <= len(body) or body[end - 1] != 0x0A:  # noqa: PLR2004 - newline
            raise LayerError("a PAX header in the layer is malformed")
        key, equals, value = body[blank + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise LayerError("a PAX record in the layer has no key or no value")
        if b"\0" in (value if key in _PAX_STRINGS else key):
            raise LayerError(f"the PAX record {shown(key)} in the layer has a NUL byte where none may be")
        position = end
        if key in _SPARSE_PAIR:
            if key != _SPARSE_PAIR[len(pairs) % 2] or b"," in value:
                raise LayerError("a sparse file in the layer has an invalid map of its data")
            pairs.append(value)
        else:
            records[key] = value
    if pairs:
        records[b"GNU.sparse.map"] = b",".join(pairs)
    return records


def make_header(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    xattrs: Pax | None = None,
) -> bytes:
    """Return the header blocks of a member: ustar, preceded by extended headers for values that do not fit into ustar.

    A long target is written as a GNU long link and not as PAX ``linkpath``, from which mksquashfs 4.5.1 strips leading ``/`` and
    ``../``. The long link comes last, because tar2sqfs forgets at a PAX header what preceded it. It is never combined with a
    ``size`` record, which mksquashfs would apply to all headers that follow (links have no size).

    Args:
        name: path without a leading slash.
        kind: type flag: ``0`` file, ``1`` hard link, ``2`` symbolic link, ``5`` directory, ``6`` fifo.
        mode: permission bits.
        uid: numeric owner.
        gid: numeric group.
        size: bytes of data that follow.
        mtime: seconds since the epoch, from 0 to 2**33 - 1 (squashfs itself is limited to 2**32 - 1).
        link: target of a link.
        xattrs: PAX records to include (``SCHILY.xattr.…``).
    """
    records: Pax = dict(xattrs or {})
    extended = b""
    if len(name) > _NAME_WIDTH:
        records[b"path"] = name
    for key, value, limit in (
        (b"size", size, _OCTAL_LIMIT),
        (b"uid", uid, _ID_LIMIT),
        (b"gid", gid, _ID_LIMIT),
    ):
        if value >= limit:
            records[key] = b"%d" % value
    if records:
        body = b"".join(_record(key, value) for key, value in sorted(records.items()))
        extended = _block(b"pax", b"x", 0o644, 0, 0, len(body), 0, b"") + body + bytes(-len(body) % BLOCK)
    if len(link) > _NAME_WIDTH:
        text = link + b"\0"
        extended += _block(b"././@LongLink", b"K", 0o644, 0, 0, len(text), 0, b"") + text + bytes(-len(text) % BLOCK)
    return extended + _block(name, kind, mode, uid % _ID_LIMIT, gid % _ID_LIMIT, size % _OCTAL_LIMIT, mtime, link)


def replace_mode(block: bytes, mode: int) -> bytes:
    """Return a header block with other permission bits."""
    return _with_checksum(bytearray(block[:100] + b"%07o\0" % mode + block[108:]))


def _block(  # noqa: PLR0917 - the fields of a header, in its order
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes
) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    names = [text[:_NAME_WIDTH].ljust(_NAME_WIDTH, b"\0") for text in (name, link)]
    head = names[0] + numbers + b" " * 8 + kind + names[1] + b"ustar\x0000"
    return _with_checksum(bytearray(head.ljust(BLOCK, b"\0")))


def _with_checksum(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % byte_sum(block)
    return bytes(block)


def _record(key: bytes, value: bytes) -> bytes:
    """Return a PAX record; its length includes the length's own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
