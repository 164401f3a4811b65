from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

import pytest

from publisher.errors import LayerError
from publisher.layers.emit import Emitter, Output, published_mode
from publisher.layers.flatten import flatten
from tests.support.images import raw_tar
from tests.support.images.layers import Entry, file, indexed, tar, tree_of_stream
from tests.support.images.tar_stream import stream

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("kind", "mode", "published"),
    [
        (b"0", 0o600, 0o644),
        (b"0", 0, 0o444),
        (b"0", 0o4711, 0o4755),
        (b"0", 0o640, 0o644),
        (b"5", 0o700, 0o755),
        (b"5", 0o1000, 0o1555),
        (b"6", 0o200, 0o644),
        (b"2", 0o644, 0o777),
    ],
)
def test_published_files_are_readable_by_everybody(kind: bytes, mode: int, published: int) -> None:
    assert published_mode(kind, mode) == published


def test_entries_that_need_no_change_are_copied_byte_by_byte(tmp_path: Path) -> None:
    kept = [
        raw_tar.file(b"a"),
        raw_tar.pax((b"path", b"b"), (b"mtime", b"1500000000.5")) + raw_tar.file(b"x"),
        raw_tar.header(b"d/", b"5"),
    ]
    kept[2] = raw_tar.header(b"./d/", b"5", mode=b"0000755\0", tail=b"")
    assert stream([b"".join(kept) + raw_tar.END], tmp_path) == b"".join(kept) + raw_tar.END


def test_times_are_limited_to_the_newest_that_is_not_in_the_future(tmp_path: Path) -> None:
    layer = tar(
        [file("future", mtime=3_000_000_000), file("newest", mtime=1_700_000_000), file("past", mtime=-7), file("d/x", mtime=5)]
    )
    times = {path: node[4] for path, node in tree_of_stream(stream([layer], tmp_path)).items()}
    assert times == {b"future": 1_700_000_000, b"newest": 1_700_000_000, b"past": 0, b"d/x": 5, b"d": 1_700_000_000}


def test_entries_are_copied_rewritten_and_dropped_in_any_order(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(80)]  # 4 MB: several buffers, and portions that are passed over at a time
    contents = {name: name.encode() * 25_000 for name in names}
    layer = tar([file(name, contents[name], mode=0o600 if int(name) % 5 == 1 else 0o644) for name in names])
    dropped = [name for name in names if int(name) % 7 in {2, 3}]
    tree = tree_of_stream(stream([layer, tar([file(f".wh.{name}", b"") for name in dropped])], tmp_path))
    kept = sorted(set(names) - set(dropped))
    assert {path.decode(): (node.mode, node.content) for path, node in tree.items()} == {
        name: (0o644, contents[name]) for name in kept
    }


def test_what_is_copied_unchanged_is_not_parsed_again(tmp_path: Path) -> None:
    blobs, indexes = indexed([raw_tar.file(b"a") + raw_tar.file(b"b") + raw_tar.END], tmp_path)
    damaged = bytearray(blobs[0].read_bytes())
    damaged[148:154] = b"no sum"  # mksquashfs refuses it
    blobs[0].write_bytes(damaged)
    out = io.BytesIO()
    Emitter(Output(out.write), 1 << 32).write_layers(flatten(indexes).finish(), blobs, indexes, lambda _: None)
    assert out.getvalue() == damaged[: -len(raw_tar.END)]


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ([file("a", bytes(2000), mode=0o600), file("b"), file("c")], "entry 2 is not where it was"),
        ([file("a", bytes(9), mode=0o600), file("b", bytes(9))], "truncated within the data of entry 2"),
    ],
)
def test_a_layer_with_other_entries_than_its_index_is_refused(other: list[Entry], problem: str, tmp_path: Path) -> None:
    layer = tar([file("a", bytes(9), mode=0o600), file("b", bytes(20_000)), file("c")])
    blobs, indexes = indexed([layer], tmp_path)
    blobs[0].write_bytes(tar(other))
    with pytest.raises(LayerError, match=problem):
        Emitter(Output(lambda _: None), 1 << 32).write_layers(flatten(indexes).finish(), blobs, indexes, lambda _: None)


def test_progress_counts_every_compressed_byte_in_the_callers_thread(tmp_path: Path) -> None:
    import gzip  # noqa: PLC0415 - only here

    layers = [gzip.compress(tar([file(f"a{number}", bytes(3 << 20))])) for number in range(2)]
    layers.append(tar([file("kept"), file("tail", bytes(5 << 20))]))
    layers.append(gzip.compress(tar([file(".wh.a0", b""), file(".wh.tail", b"")])))
    blobs, indexes = indexed(layers, tmp_path)
    told: list[tuple[int, threading.Thread]] = []
    plan = flatten(indexes).finish()
    emitter = Emitter(Output(lambda _: None), 0)
    emitter.write_layers(plan, blobs, indexes, lambda count: told.append((count, threading.current_thread())))
    assert sum(count for count, _ in told) == sum(map(len, layers))
    assert {thread for _, thread in told} == {threading.current_thread()}


def test_a_layer_with_fewer_entries_than_its_index_is_refused(tmp_path: Path) -> None:
    blobs, indexes = indexed([tar([file("a"), file("b")])], tmp_path)
    blobs[0].write_bytes(tar([file("a")]))
    emitter = Emitter(Output(lambda _: None), 1 << 32)
    with pytest.raises(LayerError, match="fewer entries"):
        emitter.write_layers(flatten(indexes).finish(), blobs, indexes, lambda _: None)


def test_a_layer_of_which_nothing_survives_is_not_read(tmp_path: Path) -> None:
    blobs, indexes = indexed([tar([file("a", b"old")]), tar([file("a", b"new")])], tmp_path)
    blobs[0].write_bytes(b"BZh: refused if it were looked at")
    out = io.BytesIO()
    Emitter(Output(out.write), 1 << 32).write_layers(flatten(indexes).finish(), blobs, indexes, lambda _: None)
    assert {path: node[5] for path, node in tree_of_stream(out.getvalue()).items()} == {b"a": b"new"}
