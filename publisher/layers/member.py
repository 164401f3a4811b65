"""One entry of a layer: what its header blocks say, read as Go's ``archive/tar`` reads them.

Whatever mksquashfs would read otherwise, or not at all, makes the entry not ``plain``: its header is then written anew. That
matters beyond comfort: two readers that disagree about one size would see two different archives. What mksquashfs does is
from ``tar.c`` of squashfs-tools 4.5.1; the little that tar2sqfs 1.2 reads otherwise still is in here too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from publisher.errors import LayerError
from publisher.layers.header import Pax, checksum_is_right, make_header, number, with_mode
from publisher.layers.sparse import pax_version

if TYPE_CHECKING:
    from publisher.layers.sparse import Segments

_MAX_MODE = 0o7777
_NO_DATA = frozenset(b"123456")
_KINDS = frozenset(b"\x0001234567S")
_MAX_ID = 0xFFFFFFFE  # the highest number is no owner: chown(2) takes it for "as it is"
_MAX_LINK = 4095  # bytes of a symbolic link's target: PATH_MAX less its NUL
_MAGICS = (b"ustar\x0000", b"ustar  \0")  # of POSIX and of GNU
_COMMON_NUMBERS = re.compile(rb"(?:[0-7]{7}[ \0]|[0-7]{6} \0){3}(?:[0-7]{11}[ \0]){2}")  # mode, uid, gid, size, mtime
_DEVICE_NUMBERS = re.compile(rb"[0-7 \0]{16}")
_ROOT_NAMES = b"root".ljust(32, b"\0") * 2
_HARMLESS = frozenset((b"path", b"size", b"uid", b"gid", b"atime", b"ctime", b"comment"))
_XATTR = b"SCHILY.xattr."
_KEPT_XATTRS = (_XATTR + b"user.", _XATTR + b"security.", _XATTR + b"trusted.")  # all that squashfs can hold
_ACLS = (_XATTR + b"system.posix_acl_", b"SCHILY.acl.")
_DROPPED_XATTRS = (
    _XATTR + b"security.selinux",  # of the host that built the layer; umoci refuses it too
    _XATTR + b"security.nfs4_acl",
    _XATTR + b"trusted.overlay.",
    _XATTR + b"user.overlay.",
    _XATTR + b"user.rootlesscontainers",
)


class Headers(NamedTuple):
    """The header blocks of one entry: the last one, and what stood in front of it.

    Attributes:
        block: the header block itself, 512 bytes.
        pax: records of the extended header, None without one.
        long_name: GNU's long name, None without one.
        long_link: GNU's long link target, None without one.
        foreign: a global extended header came before it (it applies to nothing, as in Go), or so many, mixed or odd ones that
            mksquashfs would read them otherwise.
    """

    block: bytes
    pax: Pax | None = None
    long_name: bytes | None = None
    long_link: bytes | None = None
    foreign: bool = False


class Member:
    """One entry of a layer.

    Attributes:
        kind: type flag: ``0`` file, ``1`` hard link, ``2`` symbolic link, ``3`` ``4`` device, ``5`` directory, ``6`` fifo.
        name: path from the root, without ``.`` parts and slashes at its ends; ``b""`` is the root itself.
        link: target of a link; a hard link's as a path from the root.
        size: bytes of content (of a sparse file: with its holes).
        stored: bytes of content in the archive.
        mode: permission bits. uid, gid: numeric owner. mtime: seconds since the epoch, may be negative.
        xattrs: the PAX records to keep.
        acl: there are access control lists among those that are not kept: squashfs holds none.
        plain: the header blocks can stand in the output as they are.
        sparse: where a sparse file's data belongs, None for all others.
    """

    __slots__ = (
        "acl", "block", "gid", "kind", "link", "mode", "mtime", "name", "plain", "size", "sparse", "stored", "uid", "xattrs"
    )  # fmt: skip

    def __init__(self, kind: bytes, name: bytes, link: bytes) -> None:
        self.kind = kind
        self.name = name
        self.link = link
        self.size = self.stored = self.mode = self.uid = self.gid = self.mtime = 0
        self.xattrs: Pax = {}
        self.acl = False
        self.plain = True
        self.sparse: Segments | None = None
        self.block = b""  # the header block where it stands alone, without extended headers

    def header(self, mode: int, mtime: int) -> bytes | None:
        """The header to write in place of the member's own under its own name, None where its own will do."""
        if self.plain and mtime == self.mtime:
            if mode == self.mode:
                return None
            if self.block:
                return with_mode(self.block, mode)
        return self.renamed(self.name, mode, mtime)

    def renamed(self, name: bytes, mode: int, mtime: int) -> bytes:
        """A header for the member's content under another name."""
        return make_header(
            name,
            self.kind,
            mode=mode,
            uid=self.uid,
            gid=self.gid,
            size=self.size,
            mtime=mtime,
            link=self.link,
            xattrs=self.xattrs,
        )


def interpret(headers: Headers) -> Member:
    """What the header blocks of one entry say (a sparse file's map aside).

    Raises:
        LayerError: hostile, malformed, or a kind of entry that container layers do not have.
    """
    block, pax = headers.block, headers.pax
    kind = block[156:157]
    if kind[0] not in _KINDS:
        raise LayerError(f"the layer has an entry of a kind that no container layer has: type {kind!r}")
    raw, raw_link = _names(headers)
    if kind == b"\0" and raw.endswith(b"/"):
        kind = b"5"  # as Go: version 7's tar had no type for directories
    name = normalised(raw)
    link = normalised(raw_link) if kind == b"1" else raw_link if kind == b"2" else b""
    if b"\0" in link or (kind == b"2" and not 0 < len(link) <= _MAX_LINK):
        raise LayerError(f"the layer has a link whose target no file system takes: {name!r}")
    if not name and kind != b"5":
        raise LayerError("the layer wants to make the root something else than a directory")
    member = Member(b"0" if kind in b"\x007S" else kind, name, link)
    if pax is None and headers.long_name is None and headers.long_link is None:
        member.block = block
    _numbers(member, block, pax)
    if headers.foreign or kind in b"\x007S" or not _spelled(raw, name, kind) or not _common(member, block):
        member.plain = False
    if pax:
        _records(member, pax)
    if kind[0] in _NO_DATA:
        member.plain = member.plain and not member.size  # old archives give hard links the size of their target
        member.stored = member.size = 0
    return member


def normalised(name: bytes) -> bytes:
    """A member's name as a path from the root: absolute names lose their slash, ``.`` and empty parts go.

    Raises:
        LayerError: a ``..`` part, or a NUL byte.
    """
    if name[:2] == b"./":
        name = name[2:]
    if name[-1:] == b"/":
        name = name.rstrip(b"/")
    if name[:1] != b"/" and b"//" not in name and b"/." not in name and name[:1] != b".":
        if b"\0" in name:
            raise LayerError(f"a layer has a name with a NUL byte: {name!r}")
        return name
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        raise LayerError(f"a layer has an entry outside of its root: {name!r}")
    return b"/".join(parts)


def _names(headers: Headers) -> tuple[bytes, bytes]:
    """Name and link target as they are spelled, by the strongest of the headers that have one."""
    block, pax = headers.block, headers.pax
    name = block[:100].partition(b"\0")[0]
    if block[345] and block[257:263] == b"ustar\0":
        end = 476 if block[508:512] == b"tar\0" else 500  # Schily's star has times behind a shorter prefix
        name = block[345:end].partition(b"\0")[0] + b"/" + name
    link = block[157:257].partition(b"\0")[0]
    if pax:
        name = pax.get(b"path") or name
        link = pax.get(b"linkpath") or link
    name = headers.long_name or name
    link = headers.long_link or link
    if pax and pax_version(pax) is not None:
        name = pax.get(b"GNU.sparse.name") or name
    return name, link


def _numbers(member: Member, block: bytes, pax: Pax | None) -> None:
    member.mode = number(block[100:108])
    member.uid = number(block[108:116])
    member.gid = number(block[116:124])
    member.size = number(block[124:136])
    member.mtime = number(block[136:148])
    if not 0 <= member.mode <= _MAX_MODE:
        member.plain = False
        member.mode &= _MAX_MODE
    if pax:
        for field in ("uid", "gid", "size", "mtime"):
            text = pax.get(field.encode())
            if text:  # Go ignores empty ones
                setattr(member, field, _decimal(text))
    if member.size < 0 or not 0 <= member.uid <= _MAX_ID or not 0 <= member.gid <= _MAX_ID:
        raise LayerError(f"the layer's entry {member.name!r} has a size or an owner that cannot be")
    if member.mtime < 0:
        member.plain = False
    member.stored = member.size


def _records(member: Member, pax: Pax) -> None:
    """The records that are kept; ``plain`` only where mksquashfs reads all of them as Go does.

    It needs a fraction in ``mtime``, looks up ``uname`` and ``gname`` on this host, strips leading ``/`` and ``../`` of a
    ``linkpath``, takes the first of two equal attributes, reads LIBARCHIVE's, and knows not all of the sparse formats.
    """
    for key, value in pax.items():
        if not value or not (key in _HARMLESS or (key == b"mtime" and b"." in value)):
            member.plain = False  # Go ignores an empty record
        if key.startswith(_KEPT_XATTRS) and not key.startswith(_DROPPED_XATTRS):
            member.xattrs[key] = value
        elif key.startswith(_ACLS):
            member.acl = True


def _common(member: Member, block: bytes) -> bool:
    """Whether mksquashfs reads the rest of the header block as it was read here.

    Its numbers end at a leading NUL, it takes 345 to 500 for a prefix whatever the format, and it looks owners' names up on
    this host before it takes their numbers. tar2sqfs takes no checksums of signed bytes, and looks at every entry's device.
    """
    if not is_common(block):
        return False
    if block[345] and (block[262] or block[508:512] == b"tar\0" or block[345] == 0x2E):  # noqa: PLR2004 - a dot
        return False
    names = block[265:329]
    return not names.strip(b"\0") or (names == _ROOT_NAMES and not member.uid and not member.gid)


def is_common(block: bytes) -> bool:
    """Whether all readers take the same numbers from a header block, be it that of an entry or an extended one."""
    if not _COMMON_NUMBERS.fullmatch(block, 100, 148) or block[257:265] not in _MAGICS:
        return False
    return bool(_DEVICE_NUMBERS.fullmatch(block, 329, 345)) and (block.isascii() or checksum_is_right(block, signed=False))


def _spelled(raw: bytes, name: bytes, kind: bytes) -> bool:
    """Whether mksquashfs reads ``raw`` as ``name``: it strips leading ``./``, and a trailing slash makes a directory of it."""
    if not name:
        return False
    if raw in (name, b"./" + name):
        return True
    return kind == b"5" and raw in (name + b"/", b"./" + name + b"/")


def _decimal(text: bytes) -> int:
    """A PAX number: seconds may have a fraction, which rounds down."""
    whole, _, fraction = text.partition(b".")
    sign = whole.startswith(b"-")
    digits = whole[1:] if sign else whole
    if not digits.isdigit() or (fraction and not fraction.isdigit()) or len(digits) > 20:  # noqa: PLR2004 - 64 bits
        raise LayerError(f"a PAX record in the layer has {text!r} where a number belongs")
    value = int(digits)
    if sign:
        return -value - (1 if fraction.strip(b"0") else 0)
    return value
