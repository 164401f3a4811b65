from __future__ import annotations

import hashlib
import struct
from array import array
from pathlib import Path
from types import SimpleNamespace

import pytest

from publisher.contract import chunk_table
from publisher.contract.chunk_table import HEADER_BYTES, MAX_CHUNKS, ChunkTable, parse_chunk_table, serialize
from publisher.contract.errors import ChunkTableError

ROOT = Path(__file__).parents[3]
PARTS = (b"0123456", b"789")
COUNT_OFFSET, SIZE_OFFSET = 24, 28


def table(*parts: bytes, minimum: int = 4, average: int = 5, maximum: int = 8) -> ChunkTable:
    sif = b"".join(parts)
    return ChunkTable(
        hashlib.sha256(sif).hexdigest(),
        len(sif),
        minimum=minimum,
        average=average,
        maximum=maximum,
        lengths=map(len, parts),
        digests=b"".join(hashlib.sha256(part).digest() for part in parts),
    )


CONTENT = serialize(table(*PARTS))


def with_lengths(*lengths: int) -> bytes:
    """A table whose lengths say something else."""
    return CONTENT[:HEADER_BYTES] + struct.pack(f"<{len(lengths)}I", *lengths) + CONTENT[HEADER_BYTES + 4 * len(lengths) :]


def with_number(offset: int, number: int, kind: str = "<I") -> bytes:
    changed = bytearray(CONTENT)
    struct.pack_into(kind, changed, offset, number)
    return bytes(changed)


def test_a_table_is_read_as_it_was_written() -> None:
    parsed = parse_chunk_table(CONTENT)
    assert (parsed.sif_sha256, parsed.sif_size) == (hashlib.sha256(b"0123456789").hexdigest(), 10)
    assert (parsed.minimum, parsed.average, parsed.maximum) == (4, 5, 8)
    assert (len(parsed), parsed.lengths) == (2, array("I", [7, 3]))
    assert [parsed.digest(number) for number in range(2)] == [hashlib.sha256(part).digest() for part in PARTS]
    assert serialize(parsed) == CONTENT


def test_the_example_of_the_documentation_is_this_table() -> None:
    text = (ROOT / "docs" / "manifest.md").read_text()
    block = text.partition("## Chunk tables")[2].partition("```\n")[2].partition("```")[0]
    assert bytes.fromhex("".join(line.partition("#")[0] for line in block.splitlines())) == CONTENT


def test_a_longer_header_is_skipped() -> None:
    """A later publisher may say more: its readers from before ignore it."""
    longer = with_number(10, HEADER_BYTES + 8, "<H")
    assert serialize(parse_chunk_table(longer[:HEADER_BYTES] + b"whatever" + longer[HEADER_BYTES:])) == CONTENT


def test_bytes_of_lengths_do_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A big-endian machine has the bytes of its numbers in the other order, and turns them; here the turning itself is seen."""
    monkeypatch.setattr(chunk_table, "sys", SimpleNamespace(byteorder="big"))
    assert serialize(table(*PARTS))[HEADER_BYTES : HEADER_BYTES + 8] == struct.pack(">2I", 7, 3)
    with pytest.raises(ChunkTableError):
        parse_chunk_table(CONTENT)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "less than a header", id="empty"),
        pytest.param(CONTENT[: HEADER_BYTES - 1], "less than a header", id="half a header"),
        pytest.param(b"\x00" * 1000, "not a chunk table", id="zeros"),
        pytest.param(b"<html>" * 100, "not a chunk table", id="a page of a proxy"),
        pytest.param(with_number(8, 2, "<H"), "version 1", id="another version"),
        pytest.param(with_number(10, HEADER_BYTES - 1, "<H"), "header", id="a header that is too short"),
        pytest.param(with_number(10, 65535, "<H"), "header", id="a header that is too long"),
        pytest.param(CONTENT[:-1], "not right", id="cut off"),
        pytest.param(CONTENT + b"\x00", "not right", id="something behind it"),
        pytest.param(with_number(COUNT_OFFSET, 3), "not right", id="another number of chunks"),
        pytest.param(with_number(COUNT_OFFSET, MAX_CHUNKS + 1), "more than", id="endless"),
        pytest.param(with_number(COUNT_OFFSET, 0)[:HEADER_BYTES], "0 chunks", id="no chunks"),
        pytest.param(with_number(SIZE_OFFSET, 11, "<Q"), "its SIF 11", id="a larger SIF"),
        pytest.param(with_number(SIZE_OFFSET, (1 << 64) - 1, "<Q"), "its SIF", id="the largest SIF"),
        pytest.param(with_lengths(7, 4), "its SIF 10", id="lengths that are too long together"),
        pytest.param(with_lengths(10, 0), "empty", id="an empty chunk"),
        pytest.param(with_lengths(9, 1), "more than 8", id="a chunk above the maximum"),
        pytest.param(with_lengths(3, 7), "less than 4", id="a chunk below the minimum"),
        pytest.param(with_number(12, 0), "sizes", id="no minimum"),
        pytest.param(with_number(12, 6), "sizes", id="a minimum above the average"),
        pytest.param(with_number(20, 4), "sizes", id="an average above the maximum"),
        pytest.param(with_number(20, chunk_table.MAX_CHUNK_BYTES + 1), "sizes", id="chunks that are too large"),
    ],
)
def test_what_is_not_right_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ChunkTableError, match=reason):
        parse_chunk_table(content)


def test_a_table_that_nobody_would_read_is_not_written() -> None:
    wrong = table(*PARTS)
    wrong.digests = wrong.digests[:-1]
    with pytest.raises(ChunkTableError, match="63 bytes of their digests"):
        serialize(wrong)
