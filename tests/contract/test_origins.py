"""The contract of every implementation of an origin."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from publisher.errors import OriginError
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publisher.targets.origins.base import Origin

CONTENT = b"a SIF\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIF = f"sif/{SHA256[:2]}/{SHA256}.sif"
SHARD = f"manifest/shards/{SHA256}.json"
INDEX = "manifest/index.json"

UNSAFE = [
    *("", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", ".", "a/./b", "a//b", "a/"),
    *("a\nb", "a\0b", "a\x7f", "\x1b[31m", "\udc80", "x" * 256, "a/" + "é" * 128),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "built.sif"
    path.write_bytes(CONTENT)
    return path


def put(origin: Origin, source: Path, name: str = SIF) -> bool:
    return origin.put(name, source, sha256=SHA256, size=len(CONTENT))


def test_a_new_origin_holds_nothing(origin: Origin) -> None:
    assert origin.recover() == []
    assert list(origin.names()) == []
    assert origin.read(SIF) is None
    assert origin.size(SIF) is None


def test_a_stored_file_is_there_for_others_and_its_source_stays(origins: Callable[[], Origin], source: Path) -> None:
    assert put(origins(), source)
    assert origins().read(SIF) == CONTENT
    assert origins().size(SIF) == len(CONTENT)
    assert list(origins().names()) == [SIF]
    assert source.read_bytes() == CONTENT


def test_an_object_that_has_a_local_path_is_the_file_there(origin: Origin, source: Path) -> None:
    assert origin.local_path(SIF) is None
    put(origin, source)
    path = origin.local_path(SIF)
    assert path is None or path.read_bytes() == CONTENT  # an origin elsewhere has none


def test_who_reads_along_gets_all_bytes_of_an_object_that_is_hashed(origin: Origin, source: Path) -> None:
    class Reader:
        content = b""

        def restart(self) -> None:
            self.content = b""

        def update(self, data: bytes) -> None:
            self.content += data

    reader = Reader()
    assert origin.sha256(SIF, reader) is None
    put(origin, source)
    assert origin.sha256(SIF, reader) == SHA256
    assert reader.content == CONTENT


def test_what_happens_to_the_source_afterwards_does_not_reach_the_object(origin: Origin, source: Path) -> None:
    put(origin, source)
    source.write_bytes(b"changed")
    assert origin.read(SIF) == CONTENT


def test_storing_the_same_again_says_that_it_was_there(origins: Callable[[], Origin], source: Path) -> None:
    assert put(origins(), source)
    assert not put(origins(), source)
    assert not origins().put_bytes(SIF, CONTENT)
    assert origins().put_bytes(SHARD, CONTENT)
    assert not origins().put_bytes(SHARD, CONTENT)
    assert origins().read(SHARD) == CONTENT


def test_an_empty_object_is_an_object(origin: Origin) -> None:
    assert origin.put_bytes(SHARD, b"")
    assert origin.read(SHARD) == b""
    assert origin.size(SHARD) == 0


@pytest.mark.parametrize("there", [b"other bytes", b"A" + CONTENT[1:], b""])
def test_other_bytes_under_a_name_are_never_overwritten(origin: Origin, source: Path, there: bytes) -> None:
    origin.put_bytes(SIF, there)
    with pytest.raises(OriginError, match="other bytes"):
        put(origin, source)
    with pytest.raises(OriginError, match="other bytes"):
        origin.put_bytes(SIF, CONTENT)
    assert origin.read(SIF) == there
    assert list(origin.names()) == [SIF]


@pytest.mark.parametrize(
    ("sha256", "size"),
    [
        ("0" * 64, len(CONTENT)),
        (SHA256, len(CONTENT) - 1),
        (SHA256, len(CONTENT) + 1),
        (hashlib.sha256(CONTENT[:-1]).hexdigest(), len(CONTENT) - 1),  # it goes on behind what was announced
        (hashlib.sha256(b"").hexdigest(), 0),
    ],
)
def test_a_source_that_is_not_what_it_should_be_is_refused_with_nothing_left(
    origin: Origin, source: Path, sha256: str, size: int
) -> None:
    with pytest.raises(OriginError, match="not"):
        origin.put(SIF, source, sha256=sha256, size=size)
    assert origin.size(SIF) is None
    assert list(origin.names()) == []
    assert origin.recover() == []
    assert put(origin, source)


def test_a_source_that_is_not_there_is_an_error(origin: Origin, tmp_path: Path) -> None:
    with pytest.raises(OriginError, match="missing"):
        put(origin, tmp_path / "missing")


def test_of_many_who_store_the_same_at_once_one_does(origins: Callable[[], Origin], source: Path) -> None:
    together = threading.Barrier(8)

    def store(_number: int) -> bool:
        origin = origins()
        together.wait()
        return put(origin, source)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(store, range(8))) == [False] * 7 + [True]
    assert origins().read(SIF) == CONTENT
    assert origins().recover() == []


def test_memory_does_not_grow_with_the_size_of_an_object(origin: Origin, tmp_path: Path) -> None:
    size = 64 << 20
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(size)
    digest = hashlib.sha256(bytes(size)).hexdigest()
    tracemalloc.start()
    try:
        new = [origin.put(SIF, sparse, sha256=digest, size=size) for _ in range(2)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert new == [True, False]
    assert peak < size // 8


def test_the_index_is_replaced_as_a_whole(origin: Origin) -> None:
    for content in (b"1" * 1000, b"2", b"", b"3" * 100):
        origin.replace(INDEX, content)
        assert origin.read(INDEX) == content
        assert origin.size(INDEX) == len(content)
    assert list(origin.names()) == [INDEX]


def test_readers_see_the_old_or_the_new_index(origins: Callable[[], Origin]) -> None:
    def replace_all() -> None:
        origin = origins()
        for number in range(100):
            origin.replace(INDEX, f"{number:04}".encode() * (number + 1))

    reader = origins()
    reader.replace(INDEX, b"0000")
    child = child_process.start(replace_all)
    while child_process.running(child):
        seen = reader.read(INDEX) or b""
        assert seen == seen[:4] * (int(seen[:4]) + 1)
    assert child_process.end(child) == 0


def test_names_are_sorted_and_only_those_below_the_prefix(origin: Origin) -> None:
    stored = ["a-b", "a.b/c", "a/b", "a/c/d", "a0", "manifest/index.json", "manifest2/x", "sif/00/1.sif", "sif/ff/2.sif"]
    for name in reversed(stored):
        origin.put_bytes(name, name.encode())
    assert list(origin.names()) == stored
    assert list(origin.names("sif")) == list(origin.names("sif/")) == ["sif/00/1.sif", "sif/ff/2.sif"]
    assert list(origin.names("a")) == ["a/b", "a/c/d"]
    assert list(origin.names("manifest")) == ["manifest/index.json"]
    assert list(origin.names("nothing/here")) == []


def test_a_removed_object_is_gone_and_can_be_stored_again(origin: Origin, source: Path) -> None:
    put(origin, source)
    origin.put_bytes(SHARD, b"{}")
    origin.remove(SIF)
    assert origin.read(SIF) is None
    assert origin.size(SIF) is None
    assert list(origin.names()) == [SHARD]
    assert put(origin, source)


def test_removing_what_is_not_there_does_nothing(origin: Origin) -> None:
    origin.remove(SIF)
    origin.put_bytes(SIF, b"")
    origin.remove("sif")
    origin.remove(f"{SIF}/below")
    assert list(origin.names()) == [SIF]


def test_what_lies_above_or_below_an_object_is_no_object(origin: Origin) -> None:
    origin.put_bytes(SIF, b"")
    for name in ("sif", f"{SIF}/below"):
        assert origin.read(name) is None
        assert origin.size(name) is None
        with pytest.raises(OriginError):
            origin.put_bytes(name, b"")
        with pytest.raises(OriginError):
            origin.replace(name, b"")
    assert origin.read(SIF) == b""


@pytest.mark.parametrize("name", UNSAFE, ids=ascii)
def test_an_unsafe_name_is_refused_everywhere(origin: Origin, source: Path, name: str) -> None:
    for use in (
        lambda: put(origin, source, name),
        lambda: origin.put_bytes(name, b""),
        lambda: origin.replace(name, b""),
        lambda: origin.read(name),
        lambda: origin.size(name),
        lambda: origin.remove(name),
    ):
        with pytest.raises(OriginError):
            use()
    assert list(origin.names()) == []


@pytest.mark.parametrize("prefix", ["/", "..", "a/../..", "a//", "a\n"], ids=ascii)
def test_an_unsafe_prefix_is_refused(origin: Origin, prefix: str) -> None:
    with pytest.raises(OriginError):
        list(origin.names(prefix))
