"""Properties that the parsers must have for any input: for the fuzzer (``ci/fuzz``) and its findings."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

from publisher import oci
from publisher.contract.chunk_table import DIGEST_BYTES, HEADER_BYTES, parse_chunk_table, serialize
from publisher.contract.errors import ChunkTableError
from publisher.errors import LayerError, UnsupportedError
from publisher.fileindex.format import FileIndexWriter, IndexedFile, read_file_index
from publisher.layers.flatten import flatten
from publisher.layers.header import BLOCK, padded, parse_number
from publisher.layers.index import write_index
from publisher.layers.limits import LayerLimits
from publisher.layers.listing import write_listing
from publisher.layers.survey import survey
from tests.support.images.tar_stream import NOW, emit

if TYPE_CHECKING:
    from pathlib import Path

_LIMITS = LayerLimits(unpacked_size=1 << 20, entries=1000)
_KINDS = {tarfile.REGTYPE: "f", tarfile.LNKTYPE: "h", tarfile.SYMTYPE: "l", tarfile.DIRTYPE: "d", tarfile.FIFOTYPE: "p"}


def layer(blob: bytes, where: Path) -> None:
    """Check that a layer is refused with a LayerError, or that another reader finds in its stream what the file index says.

    A header that two readers parse differently would let a layer put unchecked content into the squashfs.
    """
    path, index, files = where / "layer", where / "index", where / "files"
    path.write_bytes(blob)
    with contextlib.suppress(LayerError):
        write_index(io.BytesIO(blob).read, index, _LIMITS)
        plan = flatten([index], _LIMITS).finish()
        newest = survey(plan, [index], NOW, _LIMITS).newest
        stream = io.BytesIO()
        emit(plan, [path], [index], newest, stream.write)
        with files.open("wb") as out:
            writer = FileIndexWriter(out)
            write_listing(writer, plan, [index], (), newest)
            writer.close()
        _check(stream.getvalue(), files)


def documents(body: bytes) -> None:
    """Check that a manifest, index or config is refused with an UnsupportedError, or can be used."""
    for parse in (_kind, oci.parse_index, _manifest, _config):
        with contextlib.suppress(UnsupportedError):
            parse(body)


def chunk_table(body: bytes) -> None:
    """Check that a chunk table is refused with a ChunkTableError, or that its chunks make up its SIF and it is written alike."""
    with contextlib.suppress(ChunkTableError):
        table = parse_chunk_table(body)
        assert sum(table.lengths) == table.sif_size
        assert all(0 < length <= table.maximum for length in table.lengths)
        assert len(b"".join(map(table.digest, range(len(table))))) == len(table) * DIGEST_BYTES
        again = serialize(table)
        assert again[HEADER_BYTES:] == body[-len(again) + HEADER_BYTES :]


def repaired(archive: bytes) -> bytes:
    """Return the archive with valid checksums in all headers, because mutations break them first."""
    fixed = bytearray(archive)
    position = 0
    while position + BLOCK <= len(fixed):
        block = fixed[position : position + BLOCK]
        if not any(block):
            break
        block[148:156] = b" " * 8
        fixed[position + 148 : position + 156] = b"%06o\0 " % sum(block)
        size = 0
        with contextlib.suppress(LayerError):
            size = parse_number(bytes(block[124:136]))
        position += BLOCK + (padded(size) if 0 <= size < len(fixed) else 0)
    return bytes(fixed)


def _check(stream: bytes, files: Path) -> None:
    lines = {line.path: line for line in read_file_index(io.BytesIO(files.read_bytes()))}
    seen = set()
    with tarfile.open(fileobj=io.BytesIO(stream), errors="surrogateescape") as archive:
        for member in archive:
            name = member.name.encode(errors="surrogateescape").removeprefix(b"./")
            assert name not in seen, f"{name!r} is twice in the stream"
            seen.add(name)
            line = lines[name]
            assert (line.kind, line.size) == (_KINDS[member.type], member.size), name
            assert (line.mode, line.uid, line.gid) == (member.mode, member.uid, member.gid), name
            assert line.content == _content(archive, member, line), name
    assert seen == lines.keys()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, line: IndexedFile) -> bytes:
    if member.type == tarfile.REGTYPE:
        opened = archive.extractfile(member)
        assert opened is not None
        return hashlib.sha256(opened.read()).hexdigest().encode()
    if member.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        return member.linkname.encode(errors="surrogateescape")
    return line.content


def _kind(body: bytes) -> None:
    assert oci.kind_of("", body) in oci.Kind


def _manifest(body: bytes) -> None:
    parsed = oci.parse_manifest(body, "sha256:" + hashlib.sha256(body).hexdigest())
    assert parsed.config.size <= oci.CONFIG_LIMIT


def _config(body: bytes) -> None:
    parsed = oci.parse_config(body)
    assert parsed.platform.os == "linux"
    oci.join(oci.ImageManifest("", "", oci.Descriptor("", "", 0), ()), parsed)
