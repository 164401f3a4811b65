from __future__ import annotations

import hashlib
import io
import threading
from typing import TYPE_CHECKING

import pytest

from publisher.errors import LayerError
from publisher.fileindex.format import FileIndexWriter, read_file_index
from publisher.layers.emit import Emitter, ExtraEntry, published_mode
from publisher.layers.flatten import flatten
from tests.support.images import raw_tar
from tests.support.images.layers import Entry, directory, file, hardlink, indexed, symlink, tar, tree_of_stream
from tests.support.images.tar_stream import stream

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.layers.flatten_plan import FlattenPlan


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


def emitted(plan: FlattenPlan, blobs: list[Path], index: Path) -> bytes:
    out = io.BytesIO()
    with index.open("wb") as opened:
        files = FileIndexWriter(opened)
        emitter = Emitter(out.write, files, 1_650_000_000)
        emitter.write_layers(plan, blobs, lambda _: None)
        emitter.write_directories(plan.implied_directories)
        emitter.write_entry(ExtraEntry(b"etc/hosts", b"0", 0o600, b"content"))
        emitter.write_entry(ExtraEntry(b".run", b"2", 0o777, link=b".singularity.d/run"))
        emitter.write_end()
        files.close()
    assert (files.files, files.unpacked_size) == (9, 19)
    return out.getvalue()


def test_the_file_index_has_every_path_of_the_stream(tmp_path: Path) -> None:
    entries = [
        *(directory("d", 0o700, uid=7), file("d/a", b"12", mode=0o600, gid=8), hardlink("b", "d/a"), symlink("l", "/x y")),
        *(Entry("fifo", "p", mode=0o600), file("etc/caf\udce9\n", b"1234567890")),
    ]
    blobs, indexes = indexed([tar(entries)], tmp_path)
    plan = flatten(indexes).finish()
    tree = tree_of_stream(emitted(plan, blobs, tmp_path / "files"))
    lines = {line.path: line for line in read_file_index(io.BytesIO((tmp_path / "files").read_bytes()))}
    assert lines.keys() == tree.keys()
    for path, line in lines.items():
        node = tree[path]
        assert (line.mode, line.uid, line.gid, line.mtime) == (node.mode, node.uid, node.gid, node.mtime), path
        if line.kind == "f":
            assert (line.content, line.size) == (hashlib.sha256(node.content).hexdigest().encode(), len(node.content))
        if line.kind == "h":
            assert {line.content, path} == set(node.names)
        if line.kind == "l":
            assert line.content == node.content
    kinds = {path: line.kind for path, line in lines.items()}
    assert kinds.pop(b"d/a") != kinds.pop(b"b")
    assert kinds == {b"d": "d", b"l": "l", b"p": "p", b"etc": "d", b"etc/caf\xe9\n": "f", b"etc/hosts": "f", b".run": "l"}


def test_progress_counts_every_compressed_byte_in_the_callers_thread(tmp_path: Path) -> None:
    import gzip  # noqa: PLC0415 - only here

    layers = [gzip.compress(tar([file(f"a{number}", bytes(3 << 20))])) for number in range(2)]
    layers.append(tar([file("kept"), file("tail", bytes(5 << 20))]))
    layers.append(gzip.compress(tar([file(".wh.a0", b""), file(".wh.tail", b"")])))
    blobs, indexes = indexed(layers, tmp_path)
    told: list[tuple[int, threading.Thread]] = []
    plan = flatten(indexes).finish()
    emitter = Emitter(lambda _: None, FileIndexWriter(io.BytesIO()), 0)
    emitter.write_layers(plan, blobs, lambda count: told.append((count, threading.current_thread())))
    assert sum(count for count, _ in told) == sum(map(len, layers))
    assert {thread for _, thread in told} == {threading.current_thread()}


def test_access_control_lists_that_are_lost_are_counted_in_the_plan(tmp_path: Path) -> None:
    lists = [{"SCHILY.xattr.system.posix_acl_access": "x"}, {"SCHILY.acl.default": "user::rwx"}, {"SCHILY.xattr.user.x": "x"}]
    layer = tar([*(file(f"f{number}", pax=one) for number, one in enumerate(lists)), file("plain")])
    blobs, indexes = indexed([layer, tar([file("f1")])], tmp_path)
    plan = flatten(indexes).finish()
    for _ in range(2):  # a SIF that is made twice has lost them once
        Emitter(lambda _: None, FileIndexWriter(io.BytesIO()), 0).write_layers(plan, blobs, lambda _: None)
        assert plan.dropped == {"entries whose access control list is lost": 1}


def test_a_layer_with_fewer_entries_than_its_index_is_refused(tmp_path: Path) -> None:
    blobs, indexes = indexed([tar([file("a"), file("b")])], tmp_path)
    blobs[0].write_bytes(tar([file("a")]))
    emitter = Emitter(lambda _: None, FileIndexWriter(io.BytesIO()), 0)
    with pytest.raises(LayerError, match="fewer entries"):
        emitter.write_layers(flatten(indexes).finish(), blobs, lambda _: None)


def test_a_layer_of_which_nothing_survives_is_not_read(tmp_path: Path) -> None:
    blobs, indexes = indexed([tar([file("a", b"old")]), tar([file("a", b"new")])], tmp_path)
    blobs[0].write_bytes(b"BZh: refused if it were looked at")
    out = io.BytesIO()
    Emitter(out.write, FileIndexWriter(io.BytesIO()), 1 << 32).write_layers(flatten(indexes).finish(), blobs, lambda _: None)
    assert {path: node[5] for path, node in tree_of_stream(out.getvalue()).items()} == {b"a": b"new"}
