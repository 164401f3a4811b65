from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import LayerError
from publisher.layers.sparse import gnu_map, pax_map
from tests.support.images import raw_tar
from tests.support.images.layers import tree_of_stream
from tests.support.images.tar_stream import stream

if TYPE_CHECKING:
    from pathlib import Path


def old(*segments: tuple[int, int], real: int) -> bytes:
    return raw_tar.header(b"a", b"S", magic=raw_tar.GNU, tail=raw_tar.sparse_map(*segments, real=real))


def never(_: int) -> bytes:
    raise AssertionError


def test_the_old_format_continues_in_extension_blocks() -> None:
    block = raw_tar.header(
        b"a", b"S", magic=raw_tar.GNU, tail=raw_tar.sparse_map((0, 1), (2, 1), (4, 1), (6, 1), real=99, more=True)
    )
    extensions = [raw_tar.extension((8, 1), more=True), raw_tar.extension((10, 1), (99, 0))]
    found = gnu_map(block, extensions.__getitem__)
    assert found == ([(0, 1), (2, 1), (4, 1), (6, 1), (8, 1), (10, 1), (99, 0)], 99, 1024)


@pytest.mark.parametrize("block", [old((5, 5), (6, 5), real=99), old((90, 10), real=99), old(real=99)[:483] + b"\xff" * 29])
def test_maps_that_overlap_or_leave_the_file_are_refused(block: bytes) -> None:
    with pytest.raises(LayerError, match="invalid map"):
        gnu_map(block, never)


@pytest.mark.untraced
def test_a_map_without_end_is_refused() -> None:
    block = raw_tar.header(b"a", b"S", magic=raw_tar.GNU, tail=raw_tar.sparse_map(real=99, more=True))
    endless = raw_tar.extension(*[(0, 0)] * 20, (0, 1), more=True)
    with pytest.raises(LayerError, match="invalid map"):
        gnu_map(block, lambda _: endless.replace(b"00000000000\x0000000000000\0", b"00000000001\x0000000000000\0"))


@pytest.mark.parametrize(
    "text", [b"", b"1,2,3", b"1,x", b"-1,2", b"1,99", "\N{ARABIC-INDIC DIGIT ONE},2".encode(), b",".join([b"1,0"] * 100_001)]
)
def test_invalid_pax_maps_are_refused(text: bytes) -> None:
    records = {b"GNU.sparse.major": b"0", b"GNU.sparse.minor": b"1", b"GNU.sparse.size": b"9", b"GNU.sparse.map": text}
    records[b"GNU.sparse.numblocks"] = b"%d" % (len(text.split(b",")) // 2)
    if text:
        with pytest.raises(LayerError, match="invalid map"):
            pax_map(records, 0, never)
    else:
        assert pax_map(records, 0, never) == ([], 9)


@pytest.mark.parametrize("count", [b"", b"1", b"3", b"-2"])
def test_the_number_of_segments_must_be_right(count: bytes) -> None:
    with pytest.raises(LayerError, match="invalid map"):
        pax_map({b"GNU.sparse.map": b"0,1,2,1", b"GNU.sparse.numblocks": count}, 9, never)


def test_a_file_without_a_size_of_its_own_has_that_of_its_header() -> None:
    assert pax_map({b"GNU.sparse.map": b"0,1,2,1", b"GNU.sparse.numblocks": b"2"}, 9, never) == ([(0, 1), (2, 1)], 9)


@pytest.mark.parametrize("front", [b"x\n", b"-1\n", b"2\n1\n2\n3\nx\n", b"200001\n", b"1" * 511 + b"\n"])
def test_invalid_maps_in_front_of_the_data_are_refused(front: bytes) -> None:
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"99"}
    with pytest.raises(LayerError, match="invalid map"):
        pax_map(records, 0, lambda size: front.ljust(size, b"\0"))


def test_a_file_of_an_unknown_version_is_not_sparse() -> None:
    assert pax_map({b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"}, 0, never) is None


@pytest.mark.parametrize(
    "name", [name for name in [*raw_tar.ODD, *raw_tar.GNU_SPARSE] if "parse" in name and "not sparse" not in name]
)
def test_holes_are_filled(name: str, tmp_path: Path) -> None:
    archive = (raw_tar.ODD | raw_tar.GNU_SPARSE)[name] + raw_tar.END
    (ours,) = tree_of_stream(stream([archive], tmp_path)).values()
    (theirs,) = tree_of_stream(archive).values()
    assert ours[5] == theirs[5]
    assert isinstance(ours[5], bytes)
    assert len(ours[5]) >= 5000
