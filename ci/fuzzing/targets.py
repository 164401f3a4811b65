"""The fuzzing targets and their initial inputs; imported in the fuzzing process, because the parsers are instrumented here."""

from __future__ import annotations

import gzip
import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

with atheris.instrument_imports(
    include=["publisher.contract.chunk_table", "publisher.layers", "publisher.oci", "publisher.resolver.difference"]
):
    from publisher.contract.chunk_table import HEADER_BYTES, ChunkTable, serialize
    from tests.support.ep.difference_property import difference
    from tests.support.images import properties

from tests.support.images.layers import tar
from tests.support.images.raw_tar import END, GNU_SPARSE, ODD
from tests.support.images.stacks import STACKS
from tests.support.registries.registry import DOCKER, OCI, compress, describe

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_BYTES = 32_768  # of an input
_MAX_SECONDS = 20  # for one input


def fuzz(target: str, seconds: int, found: Path) -> None:
    """Fuzz a target. This does not return, because libFuzzer ends the process."""
    corpus, test, mutate = _TARGETS[target]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        start = Path(temporary) / "corpus"
        start.mkdir()
        for position, content in enumerate(corpus()):
            (start / str(position)).write_bytes(content)
        scratch = Path(temporary)
        options = [f"-max_total_time={seconds}", f"-max_len={_MAX_BYTES}", f"-timeout={_MAX_SECONDS}", "-rss_limit_mb=1024"]
        options += [f"-artifact_prefix={found}/{target}-", "-print_final_stats=1", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, str(start)], lambda data: test(data, scratch), custom_mutator=mutate)
        atheris.Fuzz()


def _archives() -> list[bytes]:
    archives = [content + END for content in (ODD | GNU_SPARSE).values()]
    archives += [tar(layer) for stack in STACKS.values() for layer in stack[:3]]
    archives = [archive for archive in archives if len(archive) <= _MAX_BYTES]
    return [*archives, *map(gzip.compress, archives[:3]), *(compress(archive, "zstd") for archive in archives[:3])]


def _documents() -> list[bytes]:
    """Return a config, and image manifests and indexes of both kinds that name it."""
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Env": ["A=1"], "Cmd": ["sh"], "Labels": {"a": "b"}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]},
        }
    ).encode()
    documents = [config]
    for types in (OCI, DOCKER):
        manifest = {"schemaVersion": 2, "mediaType": types["manifest"], "config": describe(config, types["config"])}
        body = json.dumps(manifest | {"layers": [describe(b"layer", types["gzip"])]}).encode()
        platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
        entries = [describe(body, types["manifest"]) | {"platform": platform, "annotations": {"a": "b"}}]
        documents += [body, json.dumps({"schemaVersion": 2, "mediaType": types["index"], "manifests": entries}).encode()]
    return documents


def _chunk_tables() -> list[bytes]:
    """Return tables of one chunk, of several, and of more bytes than 32 bits can count."""
    lengths = ([5], [7, 3], [1 << 24] * 300)
    tables = [
        ChunkTable("ab" * 32, sum(each), minimum=4, average=8, maximum=1 << 24, lengths=each, digests=bytes(32 * len(each)))
        for each in lengths
    ]
    return list(map(serialize, tables))


def _mutate_archive(data: bytes, max_size: int, seed: int) -> bytes:
    """Mutate an archive, mostly with valid checksums: without them every parser stops at the first header."""
    mutated: bytes = atheris.Mutate(data, len(data) if seed % 2 else max_size)
    return properties.repaired(mutated) if seed % 8 and not data.startswith((b"\x1f\x8b", b"\x28\xb5")) else mutated


def _mutate(data: bytes, max_size: int, _: int) -> bytes:
    mutated: bytes = atheris.Mutate(data, max_size)
    return mutated


def _mutate_table(data: bytes, max_size: int, seed: int) -> bytes:
    """Mutate a table, half of the time with the right number of chunks and the right size of the SIF."""
    mutated = bytearray(atheris.Mutate(data, max_size))
    count = (len(mutated) - HEADER_BYTES) // 36  # a length and a digest each
    if seed % 2 and count > 0:
        lengths = struct.unpack_from(f"<{count}I", mutated, HEADER_BYTES)
        struct.pack_into("<IQ", mutated, HEADER_BYTES - 44, count, sum(lengths))
    return bytes(mutated)


_TARGETS: dict[str, tuple[Callable[[], list[bytes]], Callable[[bytes, Path], None], Callable[[bytes, int, int], bytes]]] = {
    "layers": (_archives, properties.layer, _mutate_archive),
    "documents": (_documents, lambda data, _: properties.documents(data), _mutate),
    "differences": (lambda: [b"", b"\1" * 200, bytes(range(256))], difference, _mutate),
    "chunk_tables": (_chunk_tables, lambda data, _: properties.chunk_table(data), _mutate_table),
}
