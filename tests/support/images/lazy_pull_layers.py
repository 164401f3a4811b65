"""Layers as lazy-pulling tools write them: eStargz (containerd's stargz-snapshotter) and zstd:chunked (containers/storage).

Both are what any reader of gzip or zstd takes for one stream, with a table of contents at the end: of members or frames that
begin anew at every entry.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import struct
import tarfile
import zlib
from typing import TYPE_CHECKING

import zstandard

from tests.support.images.layers import file, tar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.images.layers import Entry

_CHUNKED_MAGIC = b"GNUlInUx"


def estargz(entries: Sequence[Entry]) -> tuple[bytes, bytes]:
    """Return a blob and the layer that it unpacks to: a gzip member for each entry, one for the table, and a footer of 51 bytes.

    The table of contents is a file of the layer, as is the landmark that says what not to prefetch.
    """
    listed = [{"name": entry.name, "type": entry.kind, "size": len(entry.content)} for entry in entries]
    table = file("stargz.index.json", json.dumps({"version": 1, "entries": listed}).encode())
    *parts, contents, end = _parts([file(".no.prefetch.landmark", b"\xf0"), *entries, table])
    members = [gzip.compress(part, mtime=0) for part in (*parts, contents + end)]
    return b"".join((*members, _stargz_footer(sum(map(len, members[:-1]))))), b"".join((*parts, contents, end))


def zstd_chunked(entries: Sequence[Entry]) -> tuple[bytes, bytes]:
    """Return a blob and the layer that it unpacks to: a zstd frame for each entry, and three skippable frames."""
    parts = _parts(entries)
    frames = [_zstd(part) for part in parts]
    manifest, split = _zstd(json.dumps({"version": 1, "entries": []}).encode()), _zstd(b"tar-split")
    where = sum(map(len, frames)) + 8
    numbers = (where, len(manifest), 27, 1, where + len(manifest) + 8, len(split), 9)
    footer = struct.pack("<7Q", *numbers) + _CHUNKED_MAGIC
    return b"".join((*frames, *map(_skippable, (manifest, split, footer)))), b"".join(parts)


def several_members(layer: bytes) -> bytes:
    """Return a layer compressed as by pigz and bgzip: gzip members of a few kilobytes, one of them empty."""
    parts = [layer[start : start + 5000] for start in range(0, len(layer), 5000)]
    return b"".join(gzip.compress(part, mtime=0) for part in (*parts[:1], b"", *parts[1:]))


def _parts(entries: Sequence[Entry]) -> list[bytes]:
    """Return an archive, split before each entry and before its end."""
    archive = tar(entries)
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as opened:
        starts = [0, *(info.offset for info in opened.getmembers()[1:]), opened.offset]
    return [archive[start:end] for start, end in itertools.pairwise([*starts, len(archive)])]


def _stargz_footer(offset: int) -> bytes:
    field = b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % offset
    head = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H", len(field)) + field
    empty = zlib.compressobj(0, zlib.DEFLATED, -15)
    return head + empty.flush() + bytes(8)


def _zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(3).compress(content)


def _skippable(content: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", len(content)) + content
