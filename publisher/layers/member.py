"""One entry of a layer, parsed from its header blocks as Go's ``archive/tar`` parses them.

An entry whose header mksquashfs would parse differently, or not at all, is not ``reusable``: its header is written anew. This is
a matter of security: two readers that disagree about one size see two different archives. The behaviour of mksquashfs is that of
``tar.c`` in squashfs-tools 4.5.1; what tar2sqfs 1.2 parses differently from that is covered too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from publisher.errors import LayerError
from publisher.layers.header import Pax, has_valid_checksum, make_header, parse_number, replace_mode
from publisher.layers.sparse import pax_version

if TYPE_CHECKING:
    from publisher.layers.sparse import Segments

_MAX_MODE = 0o7777
_KINDS_WITHOUT_DATA = frozenset(b"123456")
_KINDS = frozenset(b"\x0001234567S")
_MAX_ID = 0xFFFFFFFE  # the number above it is not an owner: for chown(2) it means "unchanged"
_MAX_LINK = 4095  # bytes of a symbolic link's target: PATH_MAX less its NUL
_MAGICS = (b"ustar\x0000", b"ustar  \0")  # POSIX, GNU
_PORTABLE_NUMBERS = re.compile(rb"(?:[0-7]{7}[ \0]|[0-7]{6} \0){3}(?:[0-7]{11}[ \0]){2}")  # mode, uid, gid, size, mtime
_DEVICE_NUMBERS = re.compile(rb"[0-7 \0]{16}")
_ROOT_NAMES = b"root".ljust(32, b"\0") * 2
_PORTABLE_RECORDS = frozenset((b"path", b"size", b"uid", b"gid", b"atime", b"ctime", b"comment"))
_XATTR = b"SCHILY.xattr."
_KEPT_XATTRS = (_XATTR + b"user.", _XATTR + b"security.", _XATTR + b"trusted.")  # the namespaces that squashfs supports
_ACLS = (_XATTR + b"system.posix_acl_", b"SCHILY.acl.")
_DROPPED_XATTRS = (
    _XATTR + b"security.selinux",  # the label of the host that built the layer; umoci skips it too
    _XATTR + b"security.nfs4_acl",
    _XATTR + b"trusted.overlay.",
    _XATTR + b"user.overlay.",
    _XATTR + b"user.rootlesscontainers",
)


class Headers(NamedTuple):
    """The header blocks of one entry: its own block and the extended headers that precede it.

    Attributes:
        block: the entry's own header block, 512 bytes.
        pax: records of the PAX extended header, None without one.
        long_name: GNU long name, None without one.
        long_link: GNU long link target, None without one.
        ambiguous: mksquashfs would parse the extended headers differently: one of them is global (which Go ignores), or their
            number, order or fields are unusual.
    """

    block: bytes
    pax: Pax | None = None
    long_name: bytes | None = None
    long_link: bytes | None = None
    ambiguous: bool = False


class Member:
    """One entry of a layer.

    Attributes:
        kind: type flag: ``0`` file, ``1`` hard link, ``2`` symbolic link, ``3`` ``4`` device, ``5`` directory, ``6`` fifo.
        name: path from the root, without ``.`` components and without slashes at its ends; ``b""`` is the root itself.
        link: target of a link; that of a hard link is a path from the root.
        size: bytes of content (with the holes of a sparse file).
        stored: bytes of content in the archive.
        mode: permission bits.
        uid: numeric owner.
        gid: numeric group.
        mtime: seconds since the epoch, may be negative.
        xattrs: the PAX records with extended attributes to keep.
        acl: the entry has access control lists, which are lost because squashfs does not support them.
        reusable: the header blocks can be written to the output unchanged.
        sparse: data segments of a sparse file, None for all other entries.
        block: the header block if the entry has no extended headers, else ``b""``.
    """

    __slots__ = (
        "acl", "block", "gid", "kind", "link", "mode", "mtime", "name", "reusable", "size", "sparse", "stored", "uid", "xattrs"
    )  # fmt: skip

    def __init__(self, kind: bytes, name: bytes, link: bytes) -> None:
        self.kind = kind
        self.name = name
        self.link = link
        self.size = self.stored = self.mode = self.uid = self.gid = self.mtime = 0
        self.xattrs: Pax = {}
        self.acl = False
        self.reusable = True
        self.sparse: Segments | None = None
        self.block = b""

    def replacement_header(self, mode: int, mtime: int) -> bytes | None:
        """Return the header to write in place of the member's own, None where its own can be written unchanged."""
        if self.reusable and mtime == self.mtime:
            if mode == self.mode:
                return None
            if self.block:
                return replace_mode(self.block, mode)
        return self.new_header(self.name, mode, mtime)

    def new_header(self, name: bytes, mode: int, mtime: int) -> bytes:
        """Return a newly made header for the member's content under a name."""
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


def parse_member(headers: Headers) -> Member:
    """Parse the header blocks of one entry, except for the map of a sparse file.

    Raises:
        LayerError: the headers are malicious, malformed, or of a type that container layers do not have.
    """
    block, pax = headers.block, headers.pax
    kind = block[156:157]
    if kind[0] not in _KINDS:
        raise LayerError(f"the layer has an entry of type {kind!r}, a kind that container layers do not have")
    raw, raw_link = _names(headers)
    if kind == b"\0" and raw.endswith(b"/"):
        kind = b"5"  # as Go does: tar of Version 7 Unix had no type for directories
    name = normalize_path(raw)
    link = normalize_path(raw_link) if kind == b"1" else raw_link if kind == b"2" else b""
    if b"\0" in link or (kind == b"2" and not 0 < len(link) <= _MAX_LINK):
        raise LayerError(f"the layer's link {name!r} has a target that file systems do not accept")
    if not name and kind != b"5":
        raise LayerError("the layer has an entry for the root that is not a directory")
    member = Member(b"0" if kind in b"\x007S" else kind, name, link)
    if pax is None and headers.long_name is None and headers.long_link is None:
        member.block = block
    _set_numbers(member, block, pax)
    portable = _is_portable_name(raw, name, kind) and _has_portable_header(member, block)
    if headers.ambiguous or kind in b"\x007S" or not portable:
        member.reusable = False
    if pax:
        _apply_records(member, pax)
    if kind[0] in _KINDS_WITHOUT_DATA:
        member.reusable = member.reusable and not member.size  # old archives give a hard link the size of its target
        member.stored = member.size = 0
    return member


def normalize_path(name: bytes) -> bytes:
    """Return a member's name as a path from the root, without a leading slash and without ``.`` and empty components.

    Raises:
        LayerError: the name has a ``..`` component or a NUL byte.
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
    """Return name and link target as written in the header that takes precedence for each."""
    block, pax = headers.block, headers.pax
    name = block[:100].partition(b"\0")[0]
    if block[345] and block[257:263] == b"ustar\0":
        end = 476 if block[508:512] == b"tar\0" else 500  # star has a shorter prefix, followed by times
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


def _set_numbers(member: Member, block: bytes, pax: Pax | None) -> None:
    member.mode = parse_number(block[100:108])
    member.uid = parse_number(block[108:116])
    member.gid = parse_number(block[116:124])
    member.size = parse_number(block[124:136])
    member.mtime = parse_number(block[136:148])
    if not 0 <= member.mode <= _MAX_MODE:
        member.reusable = False
        member.mode &= _MAX_MODE
    if pax:
        for field in ("uid", "gid", "size", "mtime"):
            text = pax.get(field.encode())
            if text:  # Go ignores empty ones
                setattr(member, field, _parse_decimal(text))
    if member.size < 0 or not 0 <= member.uid <= _MAX_ID or not 0 <= member.gid <= _MAX_ID:
        raise LayerError(f"the layer's entry {member.name!r} has an invalid size or owner")
    if member.mtime < 0:
        member.reusable = False
    member.stored = member.size


def _apply_records(member: Member, pax: Pax) -> None:
    """Set the extended attributes to keep; the member stays reusable only if mksquashfs parses all records as Go does.

    mksquashfs expects a fraction in ``mtime``, looks up ``uname`` and ``gname`` on this host, strips leading ``/`` and ``../`` of
    a ``linkpath``, uses the first of two equal attributes, reads LIBARCHIVE's, and does not support all sparse formats.
    """
    for key, value in pax.items():
        if not value or not (key in _PORTABLE_RECORDS or (key == b"mtime" and b"." in value)):
            member.reusable = False  # an empty one is ignored by Go, but not by mksquashfs
        if key.startswith(_KEPT_XATTRS) and not key.startswith(_DROPPED_XATTRS):
            member.xattrs[key] = value
        elif key.startswith(_ACLS):
            member.acl = True


def _has_portable_header(member: Member, block: bytes) -> bool:
    """Return whether mksquashfs parses the rest of the header block as it was parsed here.

    mksquashfs ends a number at a leading NUL, uses bytes 345 to 500 as a prefix whatever the format, and prefers the owners'
    names, looked up on this host, to their numbers. tar2sqfs rejects checksums of signed bytes, and parses the device numbers of
    every entry.
    """
    if not is_portable(block):
        return False
    if block[345] and (block[262] or block[508:512] == b"tar\0" or block[345] == 0x2E):  # noqa: PLR2004 - a dot
        return False
    names = block[265:329]
    return not names.strip(b"\0") or (names == _ROOT_NAMES and not member.uid and not member.gid)


def is_portable(block: bytes) -> bool:
    """Return whether all readers parse the same numbers from a header block, of an entry or of an extended header."""
    if not _PORTABLE_NUMBERS.fullmatch(block, 100, 148) or block[257:265] not in _MAGICS:
        return False
    return bool(_DEVICE_NUMBERS.fullmatch(block, 329, 345)) and (block.isascii() or has_valid_checksum(block, signed=False))


def _is_portable_name(raw: bytes, name: bytes, kind: bytes) -> bool:
    """Return whether mksquashfs parses ``raw`` as ``name``: it strips a leading ``./``, and a trailing slash of a directory."""
    if not name:
        return False
    if raw in (name, b"./" + name):
        return True
    return kind == b"5" and raw in (name + b"/", b"./" + name + b"/")


def _parse_decimal(text: bytes) -> int:
    """Return a PAX number as an integer; a fraction (of seconds) is rounded down."""
    whole, _, fraction = text.partition(b".")
    sign = whole.startswith(b"-")
    digits = whole[1:] if sign else whole
    if not digits.isdigit() or (fraction and not fraction.isdigit()) or len(digits) > 20:  # noqa: PLR2004 - 64 bits
        raise LayerError(f"a PAX record in the layer has {text!r} where a number belongs")
    value = int(digits)
    if sign:
        return -value - (1 if fraction.strip(b"0") else 0)
    return value
