"""What the publisher's reader of tar archives must have in common with Go's, and where it may refuse more."""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING

from publisher.errors import LayerError
from publisher.layers.header import make_header
from publisher.layers.member import normalize_path
from publisher.layers.scan import Scanner
from tests.support.images.go_reader import ReadEntry

if TYPE_CHECKING:
    from tests.support.images.go_reader import GoReader

_CAPABILITY = b"security.capability"
_OTHERS = (b"user.overlay.", b"user.rootlesscontainers")
_REFUSED_HERE = re.compile(
    "a kind that container layers do not have|leads out of the root|NUL byte|target that file systems do not accept"
    "|an entry for the root that is not a directory|an invalid size or owner|too many extended headers"
    "|supports for files and directories only"
)
"""Reasons to refuse what Go reads: no container needs it, or no file system takes it (docs/fidelity.md)."""


def compare(archive: bytes, go: GoReader) -> bool:
    """Check that an archive is read as Go reads it; return whether both have read it.

    Raises:
        AssertionError: the readers differ.
    """
    theirs = go.read(archive)
    if theirs is None:
        return False
    try:
        ours: list[ReadEntry] | str = _read(archive)
    except LayerError as error:
        ours = str(error)
    if isinstance(ours, str):
        assert isinstance(theirs, str) or _REFUSED_HERE.search(ours), f"we refuse ({ours}) what Go reads: {theirs}"
        return False
    assert not isinstance(theirs, str), f"we read {ours}, which Go refuses: {theirs}"
    assert ours == [_as_ours(entry) for entry in theirs if entry.kind != b"g"]
    return True


def _read(archive: bytes) -> list[ReadEntry]:
    found = []
    scanner = Scanner(io.BytesIO(archive).read, lambda _: None)
    while (member := scanner.next_member()) is not None:
        content = scanner.keep(member, make_header(b"a", b"0", mode=0), digest=True) or hashlib.sha256().digest()
        attributes = {key.removeprefix(b"SCHILY.xattr."): value for key, value in member.xattrs.items() if value}
        numbers = (member.size, member.mode, member.uid, member.gid, member.mtime)
        found.append(ReadEntry(member.kind, member.name, member.link, *numbers, attributes, content))
    scanner.finish()
    return found


def _as_ours(entry: ReadEntry) -> ReadEntry:
    kind = b"0" if entry.kind == b"S" else entry.kind
    link = normalize_path(entry.link) if kind == b"1" else entry.link if kind == b"2" else b""
    held = {
        key: value
        for key, value in entry.attributes.items()
        if key == _CAPABILITY or (key.startswith(b"user.") and not key.startswith(_OTHERS))
    }
    return entry._replace(kind=kind, name=normalize_path(entry.name), link=link, attributes=held)
