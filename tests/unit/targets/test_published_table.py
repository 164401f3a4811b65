from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from publisher.chunks.cutter import ChunkCutter
from publisher.contract.records import Chunks, Sif
from publisher.errors import OriginError
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.published_table import compare_sifs, read_table

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"a SIF" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
cutter = ChunkCutter()
cutter.update(CONTENT)
TABLE = cutter.finish(SHA256) or b""


@pytest.fixture
def origin(tmp_path: Path) -> DirectoryOrigin:
    return DirectoryOrigin(tmp_path)


def named(origin: DirectoryOrigin, content: bytes, sif: str = SHA256, size: int = len(CONTENT)) -> Sif:
    chunks = Chunks(hashlib.sha256(content).hexdigest(), len(content))
    origin.put_bytes(chunks.path, content)
    return Sif("sif/x", sif, size, chunks)


def test_the_table_that_a_record_names_is_read(origin: DirectoryOrigin) -> None:
    table = read_table(origin, named(origin, TABLE))
    assert table is not None
    assert (table.sif_sha256, table.sif_size) == (SHA256, len(CONTENT))
    assert read_table(origin, Sif("sif/x", SHA256, 1)) is None


def test_two_sifs_are_compared_by_their_tables(origin: DirectoryOrigin) -> None:
    sif = named(origin, TABLE)
    found = compare_sifs(origin, sif, sif)
    assert found is not None
    assert (found.size, found.needed, found.ranges) == (len(CONTENT), 0, 0)
    without = Sif("sif/y", SHA256, len(CONTENT))
    assert [compare_sifs(origin, *pair) for pair in ((without, sif), (sif, without), (None, sif), (sif, None))] == [None] * 4


def test_what_is_not_the_table_of_this_sif_is_refused(origin: DirectoryOrigin) -> None:
    with pytest.raises(OriginError, match="is missing"):
        read_table(origin, Sif("sif/x", SHA256, 1, Chunks("ab" * 32, 5)))
    with pytest.raises(OriginError, match="is not a chunk table"):
        read_table(origin, named(origin, b"x" * 500))
    with pytest.raises(OriginError, match="of another SIF"):
        read_table(origin, named(origin, TABLE, sif="cd" * 32))
    with pytest.raises(OriginError, match="of another SIF"):
        read_table(origin, named(origin, TABLE, size=1))
    damaged = named(origin, TABLE)
    assert damaged.chunks is not None
    (origin.root / damaged.chunks.path).write_bytes(TABLE[:-1] + b"x")
    with pytest.raises(OriginError, match="is damaged"):
        read_table(origin, damaged)
