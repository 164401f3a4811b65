"""A directory origin whose uploader is killed (SIGKILL) before each of its changes to the file system."""

from __future__ import annotations

import hashlib
import itertools
import os
import resource
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from publisher.contract.units import format_size
from publisher.targets.origins.directory import DirectoryOrigin
from tests.support.machine import child_process

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 3 << 20
SIF, SHARD, INDEX = "sif/ab/x.sif", "manifest/shards/y.json", "manifest/index.json"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "built.sif"
    path.write_bytes(bytes(SIZE))
    return path


def put(root: Path, source: Path) -> bool:
    return DirectoryOrigin(root).put(SIF, source, sha256=hashlib.sha256(bytes(SIZE)).hexdigest(), size=SIZE)


def upload(root: Path, source: Path) -> None:
    put(root, source)
    DirectoryOrigin(root).put_bytes(SHARD, b"{}")
    DirectoryOrigin(root).replace(INDEX, b"2")


def incoming(root: Path) -> list[str]:
    area = root / ".incoming"
    return sorted(path.name for path in area.iterdir()) if area.is_dir() else []


def assert_sound(root: Path) -> None:
    """Assert that every object has its bytes, and that the index came last."""
    origin = DirectoryOrigin(root)
    assert origin.size(SIF) in (None, SIZE)
    assert origin.read(SHARD) in (None, b"{}")
    assert origin.read(INDEX) in (b"1", b"2")
    if origin.read(INDEX) == b"2":
        assert set(origin.names()) == {SIF, SHARD, INDEX}


def test_a_killed_upload_leaves_no_wrong_object_and_a_rerun_completes_it(tmp_path: Path, source: Path) -> None:
    swept = 0
    for point in itertools.count():
        root = tmp_path / str(point)
        DirectoryOrigin(root).replace(INDEX, b"1")
        if not child_process.killed(point, partial(upload, root, source)):
            break
        assert_sound(root)
        left = incoming(root)
        assert [line.split(" (")[0] for line in DirectoryOrigin(root).recover()] == [
            f"swept a killed upload: .incoming/{name}" for name in left
        ]
        assert incoming(root) == []
        assert DirectoryOrigin(root).recover() == []
        assert_sound(root)
        upload(root, source)
        assert DirectoryOrigin(root).read(INDEX) == b"2"
        assert_sound(root)
        swept += len(left)
    assert swept > 5


def test_an_upload_that_is_killed_halfway_is_swept(tmp_path: Path, source: Path) -> None:
    root = tmp_path / "origin"

    def put_half() -> None:
        """The kernel kills at the limit (setrlimit(2), RLIMIT_FSIZE)."""
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, SIZE // 2))
        put(root, source)

    assert child_process.end(child_process.start(put_half)) == -signal.SIGXFSZ
    (left,) = incoming(root)
    assert list(DirectoryOrigin(root).names()) == []
    assert DirectoryOrigin(root).recover() == [f"swept a killed upload: .incoming/{left} ({format_size(SIZE // 2)})"]
    assert put(root, source)


def test_an_upload_that_fails_halfway_leaves_nothing(tmp_path: Path, source: Path) -> None:
    root = tmp_path / "origin"

    def put_half() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, SIZE // 2))
        put(root, source)

    assert child_process.end(child_process.start(put_half)) == 1
    assert incoming(root) == []
    assert list(DirectoryOrigin(root).names()) == []


def recovered_during(event: str, root: Path, source: Path) -> list[str]:
    """Sweep while another process's upload is stopped before its first ``event``; the upload must succeed."""
    (reached, here), (go_on, go) = os.pipe(), os.pipe()

    def put_with_a_pause() -> None:
        first = iter([event])

        def pause(now: str, _arguments: tuple[object, ...]) -> None:
            if now == event and next(first, None):
                os.write(here, b".")
                os.read(go_on, 1)

        sys.addaudithook(pause)
        put(root, source)

    child = child_process.start(put_with_a_pause)
    os.read(reached, 1)
    try:
        assert len(incoming(root)) == 1
        return DirectoryOrigin(root).recover()
    finally:
        os.write(go, b".")
        assert child_process.end(child) == 0
        assert DirectoryOrigin(root).size(SIF) == SIZE
        assert incoming(root) == []
        for descriptor in (reached, here, go_on, go):
            os.close(descriptor)


def test_the_upload_of_a_living_process_is_not_swept(tmp_path: Path, source: Path) -> None:
    assert recovered_during("os.link", tmp_path / "origin", source) == []


def test_an_upload_that_is_swept_before_it_has_its_lock_begins_again(tmp_path: Path, source: Path) -> None:
    (line,) = recovered_during("fcntl.flock", tmp_path / "origin", source)
    assert line.endswith("(0 B)")
