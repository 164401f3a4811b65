"""Archives with odd, broken and contradictory headers, by chance: for comparisons of two readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.images import raw_tar
from tests.support.images.layers import tar
from tests.support.images.properties import repaired
from tests.support.images.raw_tar import BLOCK, END, GNU, GNU_SPARSE, ODD, USTAR, V7
from tests.support.images.stacks import STACKS

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_NUMBERS = ((100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (329, 8), (337, 8), (345, 12), (357, 12), (476, 12), (488, 12))
_TEXTS = (
    *(b"", b"0", b"7", b"12", b"0000644", b" 12", b"12 ", b"1 2", b"\x0012", b"12\0junk", b"8", b"-1", b"+1", b"77777777"),
    *(b"\x80" + bytes(6) + b"\x0c", b"\xff" * 8, b"\x80\0\0\0\xff\xff\xff\xfe", b"\x80" + b"\xff" * 11, b"\xbf" * 12),
)
_TAILS = (
    *(b"some/where", b"./some", b"usr/lib/python3/dist-packages", b"caf\xc3\xa9", b"12345670", b"1234567/lib", b"\0later"),
    *(b"13727410000\0" * 2, b"13727410000\0" + b"x" * 12, b"p" * 155, b"8" * 24, b"\x80" + bytes(23)),
    (b"p" * 131 + b"13727410000\0" * 2).ljust(163, b"\0") + b"tar\0",
)
_KINDS = (*(bytes([kind]) for kind in b"\x000123456Sxg"), b"7", b"L", b"K", b"V")
_KEYS = (
    *(b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"atime", b"ctime", b"uname", b"comment", b"charset"),
    *(b"SCHILY.xattr.user.a", b"SCHILY.xattr.user.\0", b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.name"),
    *(b"GNU.sparse.size", b"GNU.sparse.realsize", b"GNU.sparse.map", b"GNU.sparse.numblocks", b"GNU.sparse.offset"),
    b"GNU.sparse.numbytes",
)
_VALUES = (
    *(b"", b"0", b"1", b"7", b"+7", b"-7", b"007", b"0" * 25 + b"7", b"7.5", b"-0.5", b"-1.0000000009", b"1.", b".5", b"1_0"),
    *(b"9" * 19, b"9223372036854775807", b"-9223372036854775808", b"4294967294", b"4294967296", b" 7", b"7\0", b"a", b"a/../b"),
    *(b"../a", b"d/", b"0,7", b"1,3,5,2", b"a\0b", b"x=y\n", b"n" * 300),
)


def start(random: Random) -> bytes:
    """Return a valid archive."""
    choices: tuple[Callable[[], bytes], ...] = (
        lambda: random.choice([*(ODD | GNU_SPARSE).values()]) + END,
        lambda: b"".join(random.sample([*(ODD | GNU_SPARSE).values()], 3)) + END,
        lambda: tar(random.choice(random.choice([*STACKS.values()]))),
        lambda: b"".join(_member(random) for _ in range(random.randint(1, 5))) + random.choice((END, b"", bytes(BLOCK))),
    )
    return random.choice(choices)()


def mutated(archive: bytes, random: Random) -> bytes:
    """Return the archive with a few changes, mostly with valid checksums."""
    changed = archive
    for _ in range(random.randint(0, 4)):
        changed = random.choice((_with_field, _with_field, _with_tail, _with_kind, _with_byte, _cut, _with_member))(
            changed, random
        )
    return repaired(changed) if random.random() < 0.9 else changed


def _member(random: Random) -> bytes:
    """Return a member with extended headers in front of it."""
    front = b"".join(
        random.choice((_pax_header, _pax_header, _global_header, _long_name))(random)
        for _ in range(random.choice((0, 0, 1, 1, 2)))
    )
    magic, tail = random.choice((USTAR, GNU, GNU, V7)), random.choice((b"", b"", *_TAILS))
    kind = random.choice((b"0", b"0", b"\0", b"1", b"2", b"5", b"6"))
    name = random.choice((b"a", b"d/", b"d/a", b"./x", b"x/../y", b"..", b"n" * 100))
    content = random.choice((b"", b"content", b"12345", b"2\n1\n3\n5\n2\n".ljust(BLOCK, b"\0") + b"12345"))
    return front + raw_tar.file(name, content, kind, magic=magic, tail=tail, link=random.choice((b"a", b"d/a", b"/a", b"a/../b")))


def _pax_header(random: Random) -> bytes:
    return raw_tar.pax(*((random.choice(_KEYS), random.choice(_VALUES)) for _ in range(random.randint(1, 4))))


def _global_header(random: Random) -> bytes:
    return raw_tar.pax((random.choice(_KEYS), random.choice(_VALUES)), kind=b"g")


def _long_name(random: Random) -> bytes:
    return raw_tar.long_name(random.choice((b"", b"long", b"l" * 200, b"d/", b"a\0b")), random.choice((b"L", b"K")))


def _at_block(archive: bytes, random: Random) -> int:
    return random.randrange(max(1, len(archive) // BLOCK)) * BLOCK


def _put(archive: bytes, at: int, content: bytes) -> bytes:
    return archive[:at] + content + archive[at + len(content) :]


def _with_field(archive: bytes, random: Random) -> bytes:
    offset, width = random.choice(_NUMBERS)
    return _put(
        archive, _at_block(archive, random) + offset, random.choice(_TEXTS).ljust(width, random.choice((b"\0", b" ")))[:width]
    )


def _with_tail(archive: bytes, random: Random) -> bytes:
    at = _at_block(archive, random)
    return _put(_put(archive, at + 345, random.choice(_TAILS)), at + 257, random.choice((USTAR, GNU, GNU, V7, b"ustar  0")))


def _with_kind(archive: bytes, random: Random) -> bytes:
    return _put(archive, _at_block(archive, random) + 156, random.choice(_KINDS))


def _with_byte(archive: bytes, random: Random) -> bytes:
    return _put(
        archive, random.randrange(len(archive) or 1), bytes([random.choice((0, 32, 48, 56, 128, 255, random.randrange(256)))])
    )


def _cut(archive: bytes, random: Random) -> bytes:
    if random.random() < 0.5:
        return archive[: random.randrange(len(archive) + 1)]
    at = _at_block(archive, random)
    return archive[:at] + archive[at + BLOCK * random.randint(1, 3) :]


def _with_member(archive: bytes, random: Random) -> bytes:
    at = _at_block(archive, random)
    return archive[:at] + _member(random) + archive[at:]
