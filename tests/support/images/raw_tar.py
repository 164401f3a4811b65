"""Tar archives written byte by byte, with content that tarfile would not write, or would write differently."""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    gid: bytes = b"0000000\0",
    size: bytes | int = 0,
    mtime: bytes = b"13727410000\0",
    link: bytes = b"",
    magic: bytes = USTAR,
    uname: bytes = b"",
    gname: bytes = b"",
    tail: bytes = b"",
    signed: bool = False,
) -> bytes:
    """Return a header block; ``tail`` begins at byte 345 (ustar's prefix, GNU's times and sparse map)."""
    size_field = b"%011o\0" % size if isinstance(size, int) else size
    numbers = mode + uid + gid + size_field + mtime
    owners = uname.ljust(32, b"\0") + gname.ljust(32, b"\0") + bytes(16)
    block = bytearray(name.ljust(100, b"\0") + numbers + b" " * 8 + kind + link.ljust(100, b"\0") + magic + owners + tail)
    block += bytes(BLOCK - len(block))
    total = sum(block) - (256 * sum(byte >= 0x80 for byte in block) if signed else 0)
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def data(content: bytes) -> bytes:
    """Return content, padded to whole blocks."""
    return content + bytes(-len(content) % BLOCK)


def file(name: bytes, content: bytes = b"content", kind: bytes = b"0", **fields: object) -> bytes:
    """Return a member with content."""
    return header(name, kind, **{"size": len(content), **fields}) + data(content)  # type: ignore[arg-type]  # header's own


def record(key: bytes, value: bytes) -> bytes:
    """Return a PAX record."""
    rest = len(key) + len(value) + 3
    length = next(rest + digits for digits in range(1, 9) if len(str(rest + digits)) == digits)
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """Return an extended header."""
    return file(b"pax", b"".join(record(key, value) for key, value in records), kind)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """Return GNU's long name (``L``) or long link (``K``)."""
    return file(b"././@LongLink", name + b"\0", kind, magic=GNU)


def number(value: int, width: int = 12) -> bytes:
    """Return a number in GNU's base 256."""
    return (value + (0x80 << 8 * (width - 1))).to_bytes(width, "big") if value >= 0 else value.to_bytes(width, "big", signed=True)


def sparse_map(*segments: tuple[int, int], real: int, more: bool = False) -> bytes:
    """Return the ``tail`` of GNU's old sparse header: times, four segments, the mark of an extension, the real size."""
    entries = b"".join(b"%011o\0%011o\0" % segment for segment in segments).ljust(96, b"\0")
    return bytes(41) + entries + bytes([more]) + b"%011o\0" % real


def extension(*segments: tuple[int, int], more: bool = False) -> bytes:
    """Return an extension block of GNU's old sparse format."""
    return b"".join(b"%011o\0%011o\0" % segment for segment in segments).ljust(504, b"\0") + bytes([more]) + bytes(7)


ODD: dict[str, bytes] = {
    "a size with a leading NUL": file(b"a", b"0" * 10, size=b"\0" + b"00000000012"),
    "a size with leading blanks": file(b"a", b"0" * 10, size=b"         12\0"),
    "numbers without an end": file(b"a", b"0" * 10, size=b"000000000012", mode=b"00000600"),
    "numbers in base 256": file(b"a", b"0" * 10, size=number(10), uid=number(3_000_000, 8), mtime=number(1_500_000_000)),
    "the highest owners": file(b"a", uid=number(4_294_967_294, 8), gid=number(1 << 31, 8)),
    "empty numbers": header(b"a", uid=b" " * 8, gid=bytes(8)),
    "a mode with the kind in it": file(b"a", mode=b"0100640\0") + header(b"d", b"5", mode=b"0040750\0"),
    "a time before 1970": header(b"a", mtime=number(-5)),
    "version 7": header(b"d/", b"\0", magic=V7, mode=b"0000755\0") + file(b"d/a", kind=b"\0", magic=V7, tail=b"not a prefix"),
    "GNU's times where ustar has the prefix": file(b"a", magic=GNU, tail=b"13727410000\0" * 2),
    "a prefix": file(b"a", tail=b"some/where") + file(b"b", tail=b"./some") + file(b"c", tail=b"."),
    "a prefix where GNU has times": file(b"__init__.py", b"1", magic=GNU, tail=b"usr/lib/python3/dist-packages/one")
    + file(b"__init__.py", b"2", magic=GNU, tail=b"usr/lib/python3/dist-packages/another"),
    "names with two dots": header(b"d/", b"5", mode=b"0000755\0")
    + file(b"d/../a")
    + file(b"x/y/../z")
    + header(b"b", b"1", link=b"x/../a")
    + header(b"s", b"2", link=b"d")
    + file(b"s/../c"),
    "numbers with signs and leading zeros": pax((b"size", b"0" * 30 + b"7"), (b"uid", b"+5"), (b"mtime", b"+1500000000.5"))
    + file(b"a", size=0),
    "a negative size of a directory": header(b"d", b"5", mode=b"0000755\0", size=number(-1)) + file(b"d/a"),
    "star's prefix": file(b"a", tail=(b"p" * 131 + b"13727410000\0" * 2).ljust(163, b"\0") + b"tar\0"),
    "a file with a slash at its end": file(b"a/") + file(b"d//b"),
    "a directory with a size": header(b"d", b"5", size=4096, mode=b"0000755\0") + file(b"d/a"),
    "a symlink with a size": header(b"l", b"2", link=b"/x", size=2) + file(b"d/a"),
    "a hard link with a size": file(b"a") + header(b"b", b"1", link=b"a", size=7) + file(b"c"),
    "hard links spelled otherwise": file(b"a") + header(b"b", b"1", link=b"/a") + header(b"c", b"1", link=b"./a"),
    "a checksum of signed bytes": file(b"caf\xe9", signed=True),
    "PAX times": pax((b"mtime", b"1500000000.75"), (b"atime", b"1.5")) + file(b"a") + pax((b"mtime", b"1400000000")) + file(b"b"),
    "a PAX time before 1970": pax((b"mtime", b"-1.5")) + file(b"a"),
    "PAX owners and size": pax((b"uid", b"70000"), (b"gid", b"3000000"), (b"size", b"7")) + file(b"a", size=0, uid=b"7777777\0"),
    "PAX names of owners": pax((b"uname", b"daemon"), (b"gname", b"daemon")) + file(b"a", uid=b"0000017\0", gid=b"0000020\0"),
    "PAX link targets": pax((b"linkpath", b"/abs")) + header(b"a", b"2") + pax((b"linkpath", b"../up")) + header(b"b", b"2"),
    "an empty PAX record": pax((b"path", b""), (b"uid", b"")) + file(b"a", uid=b"0000007\0"),
    "a PAX key twice": pax((b"path", b"a"), (b"path", b"b")) + file(b"c"),
    "two PAX headers": pax((b"path", b"a"), (b"uid", b"7")) + pax((b"gid", b"8")) + file(b"c"),
    "a PAX path and a long name": pax((b"path", b"a")) + long_name(b"b") + file(b"c"),
    "a PAX value that looks like records": pax(
        (b"comment", b"x\n13 path=evil\n16 size=0000005\n"), (b"path", b"good\n11 uid=77\n")
    )
    + file(b"c"),
    "an extended header whose size has a leading NUL": header(b"pax", b"x", size=b"\0" + b"0000001000\0")
    + data(record(b"path", b"b") + record(b"comment", b"c" * 490))
    + file(b"a"),
    "an extended header whose size is in base 256": header(b"pax", b"x", size=number(len(record(b"path", b"b"))))
    + data(record(b"path", b"b"))
    + file(b"a"),
    "a long name in a header with odd numbers": header(b"././@LongLink", b"L", size=b"        145 ", mode=b"        ", magic=GNU)
    + data(b"n" * 100 + b"\0")
    + file(b"c"),
    "a long name and a PAX size": pax((b"size", b"7")) + long_name(b"b" * 120) + file(b"c", size=0),
    "long name and long target": long_name(b"n" * 150) + long_name(b"/t" * 80, b"K") + header(b"n", b"2", link=b"t"),
    "a name of GNU's sparse format on a file that is not sparse": pax((b"GNU.sparse.name", b"b")) + file(b"a"),
    "PAX sparse format 0.0": pax(
        *((b"GNU.sparse.size", b"5000"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.offset", b"1000")),
        *((b"GNU.sparse.numbytes", b"3"), (b"GNU.sparse.offset", b"4000"), (b"GNU.sparse.numbytes", b"2")),
    )
    + file(b"a", b"12345"),
    "PAX sparse format 0.1": pax(
        *((b"GNU.sparse.size", b"5000"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.name", b"real")),
        (b"GNU.sparse.map", b"1000,3,4000,2"),
    )
    + file(b"GNUSparseFile.0/real", b"12345"),
    "PAX sparse format 1.0": pax(
        *((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"real")),
        (b"GNU.sparse.realsize", b"5000"),
    )
    + file(b"GNUSparseFile.0/real", data(b"2\n1000\n3\n4000\n2\n") + b"12345"),
}
"""Valid members that readers may parse differently: an archive each, without its end."""

EARLY_ENDS: dict[str, bytes] = {
    "no zero blocks": file(b"a"),
    "no padding": file(b"a") + header(b"b", size=3) + b"123",
    "some padding": file(b"a") + header(b"b", size=3) + b"123" + bytes(100),
    "an extended header": file(b"a") + pax((b"path", b"b")),
    "an extended header without padding": file(b"a") + pax((b"path", b"b")).rstrip(b"\0"),
    "an extended header, then zero blocks": file(b"a") + pax((b"path", b"b")) + END,
}
"""Archives that end where Go's reader accepts it, although their writers broke off."""

GNU_SPARSE: dict[str, bytes] = {
    "GNU's old sparse format": file(b"a", b"12345", b"S", magic=GNU, tail=sparse_map((0, 2), (4096, 3), real=10_000)),
    "GNU's old sparse format, extended": header(
        b"a", b"S", size=5, magic=GNU, tail=sparse_map((0, 1), (600, 1), (1200, 1), (1800, 1), real=9_000, more=True)
    )
    + extension((8_000, 1), (9_000, 0))
    + data(b"12345"),
    "a sparse file that is all hole": header(b"a", b"S", magic=GNU, tail=sparse_map((700_000, 0), real=700_000)),
}
"""Members in GNU's old sparse format, which Go supports and umoci refuses."""
