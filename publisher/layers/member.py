"""One entry of a layer, parsed from its header blocks as Go's ``archive/tar`` parses them.

An entry whose header mksquashfs would parse differently, or not at all, is not ``reusable``: its header is written anew. This is
a matter of security: two readers that disagree about one size see two different archives. The behaviour of mksquashfs is that of
``tar.c`` in squashfs-tools 4.5.1; what tar2sqfs 1.2 parses differently from that is covered too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from publisher.errors import LayerError, shown
from publisher.layers.header import Pax, has_valid_checksum, make_header, parse_decimal, parse_number, replace_mode
from publisher.layers.sparse import pax_version

if TYPE_CHECKING:
    from publisher.layers.sparse import Segments

_MAX_MODE = 0o7777
_KINDS_WITHOUT_DATA = frozenset(b"123456")
_KINDS = frozenset(b"\x000123456S")
_MAX_ID = 0xFFFFFFFE  # the number above it is not an owner: for chown(2) it means "unchanged"
_MAX_LINK = 4095  # bytes of a symbolic link's target: PATH_MAX less its NUL
_GNU = b"ustar  \0"
_MAGICS = (b"ustar\x0000", _GNU)  # POSIX, GNU
_NO_DEVICE = (bytes(16), b"0000000\0" * 2)
_NANOSECOND_DIGITS = 9
_SHORT, _LONG = rb"([0-7]{7}(?=[ \0])|[0-7]{6} (?=\0))[ \0]", rb"([0-7]{11})[ \0]"
_PORTABLE_NUMBERS = re.compile(_SHORT * 3 + _LONG * 2)  # mode, uid, gid, size, mtime
_DEVICE_NUMBERS = re.compile(rb"[0-7 \0]{16}")
_ROOT_NAMES = b"root".ljust(32, b"\0") * 2
_PORTABLE_RECORDS = frozenset((b"path", b"size", b"uid", b"gid", b"atime", b"ctime", b"comment"))
_NUMERIC_RECORDS = (b"size", b"uid", b"gid", b"mtime")
_PORTABLE_DECIMAL = re.compile(rb"(?:0|[1-9][0-9]{0,18})(?:\.[0-9]*)?")
_XATTR = b"SCHILY.xattr."
_USER_XATTR = _XATTR + b"user."
_CAPABILITY = _XATTR + b"security.capability"
_ACLS = (_XATTR + b"system.posix_acl_", b"SCHILY.acl.")
_DROPPED_XATTRS = (_XATTR + b"user.overlay.", _XATTR + b"user.rootlesscontainers")  # marks of the host that built the layer


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
    kind, raw, raw_link = _parse_kind_and_names(headers)
    name = normalize_path(raw)
    link = normalize_path(raw_link) if kind == b"1" else raw_link if kind == b"2" else b""
    if b"\0" in link or (kind == b"2" and not 0 < len(link) <= _MAX_LINK):
        raise LayerError(f"the layer's link {shown(name)} has a target that file systems do not accept")
    if not name and kind != b"5":
        raise LayerError("the layer has an entry for the root that is not a directory")
    member = Member(b"0" if kind in b"\0S" else kind, name, link)
    if pax is None and headers.long_name is None and headers.long_link is None:
        member.block = block
    portable = _set_numbers(member, block, pax)
    check_device_and_times(block)
    portable = portable and _is_portable_name(raw, name, kind) and _has_portable_header(member, block)
    if headers.ambiguous or kind in b"\0S" or not portable:
        member.reusable = False
    if pax:
        _apply_records(member, pax)
    if kind in b"26" and (attribute := next((key for key in member.xattrs if key.startswith(_USER_XATTR)), None)):
        raise LayerError(
            f"the layer's {'link' if kind == b'2' else 'fifo'} {shown(name)} has the attribute"
            f" {shown(attribute.removeprefix(_XATTR))}, which Linux supports for files and directories only",
            hint="the image's owner has to build it without this attribute",
        )
    if kind[0] in _KINDS_WITHOUT_DATA:
        member.reusable = member.reusable and not member.size  # old archives give a hard link the size of its target
        member.stored = member.size = 0
    return member


def normalize_path(name: bytes) -> bytes:
    """Return a member's name as a path from the root, without a leading slash and without ``.``, ``..`` and empty components.

    A ``..`` takes away the component before it, whatever that is, as in umoci and Apptainer.

    Raises:
        LayerError: the name leads out of the root, or has a NUL byte.
    """
    if name[:2] == b"./":
        name = name[2:]
    if name[-1:] == b"/":
        name = name.rstrip(b"/")
    if name[:1] != b"/" and b"//" not in name and b"/." not in name and name[:1] != b".":
        if b"\0" in name:
            raise LayerError(f"a layer has a name with a NUL byte: {shown(name)}")
        return name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise LayerError(f"a layer has a name that leads out of the root: {shown(name)}")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    if b"\0" in name:
        raise LayerError(f"a layer has a name with a NUL byte: {shown(name)}")
    return b"/".join(parts)


def _parse_kind_and_names(headers: Headers) -> tuple[bytes, bytes, bytes]:
    """Return the kind, and name and link target as they are written."""
    kind = headers.block[156:157]
    name, link = _names(headers)
    if kind[0] not in _KINDS:
        raise LayerError(f"the layer's entry {shown(name)} has the type {kind!r}, a kind that container layers do not have")
    if kind == b"\0" and name.endswith(b"/"):
        kind = b"5"  # as Go does: tar of Version 7 Unix had no type for directories
    if headers.pax and kind != b"S" and pax_version(headers.pax) is not None:
        if kind[0] in _KINDS_WITHOUT_DATA:
            raise LayerError(f"the layer's entry {shown(name)} has the map of a sparse file, and is not a file")
        name = headers.pax.get(b"GNU.sparse.name") or name
    return kind, name, link


def _names(headers: Headers) -> tuple[bytes, bytes]:
    """Return name and link target as written in the header that takes precedence for each, except for a sparse file's name."""
    block, pax = headers.block, headers.pax
    name = block[:100].partition(b"\0")[0]
    if block[345] and (prefix := _prefix(block)):
        name = prefix + b"/" + name
    link = block[157:257].partition(b"\0")[0]
    if pax:
        name = pax.get(b"path") or name
        link = pax.get(b"linkpath") or link
    name = headers.long_name or name
    link = headers.long_link or link
    return name, link


def _prefix(block: bytes) -> bytes:
    """Return what a header has of the name in front of its name field."""
    if block[257:263] == b"ustar\0":
        return block[345 : 476 if _is_star(block) else 500].partition(b"\0")[0]  # star's is shorter, and followed by times
    if block[257:265] != _GNU:
        return b""
    try:
        for field in (block[345:357], block[357:369]):
            if field[0]:
                parse_number(field)
    except LayerError:  # no times: before Go 1.8, writers of this format put a prefix there
        prefix = block[345:500].partition(b"\0")[0]
        return prefix if prefix.isascii() else b""
    return b""


def _is_star(block: bytes) -> bool:
    return block[257:263] == b"ustar\0" and block[508:512] == b"tar\0"


def check_numbers(block: bytes) -> None:
    """Raise LayerError unless mode, owner, size and time of an extended header can be parsed, because Go's reader demands it.

    Raises:
        LayerError: a number cannot be parsed.
    """
    for start, end in ((100, 108), (108, 116), (116, 124), (124, 136), (136, 148)):
        parse_number(block[start:end])


def check_device_and_times(block: bytes) -> None:
    """Raise LayerError unless the numbers of a header that are not used can be parsed: those of devices, and star's times.

    Raises:
        LayerError: a number cannot be parsed.
    """
    if block[329:345] not in _NO_DEVICE and (block[257:263] == b"ustar\0" or block[257:265] == _GNU):
        parse_number(block[329:337])
        parse_number(block[337:345])
    if block[508] and _is_star(block):
        parse_number(block[476:488])
        parse_number(block[488:500])


def _set_numbers(member: Member, block: bytes, pax: Pax | None) -> bool:
    """Set the numbers of a member; return whether all readers parse those of the block as they were parsed here."""
    match = _PORTABLE_NUMBERS.fullmatch(block, 100, 148)
    if match is not None:
        mode, uid, gid, long_size, mtime = match.groups()
        member.mode, member.uid, member.gid = int(mode, 8), int(uid, 8), int(gid, 8)
        member.size, member.mtime = int(long_size, 8), int(mtime, 8)
    else:
        member.mode = parse_number(block[100:108])
        member.uid = parse_number(block[108:116])
        member.gid = parse_number(block[116:124])
        member.size = parse_number(block[124:136])
        member.mtime = parse_number(block[136:148])
    size = member.size
    if not 0 <= member.mode <= _MAX_MODE:
        member.reusable = False
        member.mode &= _MAX_MODE
    if pax:
        for field in ("uid", "gid", "size"):
            text = pax.get(field.encode())
            if text:  # Go ignores empty ones
                setattr(member, field, parse_decimal(text))
        times = [_parse_time(text) if (text := pax.get(key)) else None for key in (b"atime", b"ctime", b"mtime")]
        if times[-1] is not None:
            member.mtime = times[-1]
    if member.kind[0] in _KINDS_WITHOUT_DATA:
        member.size = max(member.size, 0)
        size = (
            max(size, 0) if block[156] else size
        )  # Go refuses a negative one before it takes an entry without a type for a directory
    if min(size, member.size) < 0 or not 0 <= member.uid <= _MAX_ID or not 0 <= member.gid <= _MAX_ID:
        raise LayerError(f"the layer's entry {shown(member.name)} has an invalid size or owner")
    if member.mtime < 0:
        member.reusable = False
    member.stored = member.size
    return match is not None


def _apply_records(member: Member, pax: Pax) -> None:
    """Set the extended attributes to keep; the member stays reusable only if mksquashfs parses all records as Go does.

    mksquashfs expects a fraction in ``mtime``, looks up ``uname`` and ``gname`` on this host, strips leading ``/`` and ``../`` of
    a ``linkpath``, uses the first of two equal attributes, reads LIBARCHIVE's, and does not support all sparse formats. tar2sqfs
    does not read signs of numbers.
    """
    for key, value in pax.items():
        if not value or not (key in _PORTABLE_RECORDS or (key == b"mtime" and b"." in value)):
            member.reusable = False  # an empty one is ignored by Go, but not by mksquashfs
        elif key in _NUMERIC_RECORDS and not _PORTABLE_DECIMAL.fullmatch(value):
            member.reusable = False
        if not value:
            continue
        if key == _CAPABILITY or (key.startswith(_USER_XATTR) and not key.startswith(_DROPPED_XATTRS)):
            member.xattrs[key] = value
        elif key.startswith(_ACLS):
            member.acl = True


def _has_portable_header(member: Member, block: bytes) -> bool:
    """Return whether mksquashfs parses the header block but for its name and numbers as it was parsed here.

    mksquashfs ends a number at a leading NUL, uses bytes 345 to 500 as a prefix whatever the format, and prefers the owners'
    names, looked up on this host, to their numbers. tar2sqfs rejects checksums of signed bytes, and parses the device numbers of
    every entry.
    """
    if not _is_portable_but_for_numbers(block):
        return False
    if block[345] and (block[262] or block[508:512] == b"tar\0" or block[345] == 0x2E):  # noqa: PLR2004 - a dot
        return False
    names = block[265:329]
    return not names.strip(b"\0") or (names == _ROOT_NAMES and not member.uid and not member.gid)


def is_portable(block: bytes) -> bool:
    """Return whether all readers parse the same numbers from a header block, of an entry or of an extended header."""
    return bool(_PORTABLE_NUMBERS.fullmatch(block, 100, 148)) and _is_portable_but_for_numbers(block)


def _is_portable_but_for_numbers(block: bytes) -> bool:
    if block[257:265] not in _MAGICS or not _DEVICE_NUMBERS.fullmatch(block, 329, 345):
        return False
    return block.isascii() or has_valid_checksum(block, signed=False)


def _is_portable_name(raw: bytes, name: bytes, kind: bytes) -> bool:
    """Return whether mksquashfs parses ``raw`` as ``name``: it strips a leading ``./``, and a trailing slash of a directory."""
    if not name:
        return False
    if raw in (name, b"./" + name):
        return True
    return kind == b"5" and raw in (name + b"/", b"./" + name + b"/")


def _parse_time(text: bytes) -> int:
    """Return a PAX time in seconds; a fraction (of which nine digits count) is rounded down."""
    whole, _, fraction = text.partition(b".")
    seconds = parse_decimal(whole)
    if fraction and not fraction.isdigit():
        raise LayerError(f"a PAX record in the layer has {shown(text)} where a number belongs")
    return seconds - (1 if whole.startswith(b"-") and fraction[:_NANOSECOND_DIGITS].strip(b"0") else 0)
