"""The directory origin; the tests that every origin passes are in tests/contract."""

from __future__ import annotations

import hashlib
import os
import stat
import time
import tracemalloc
from pathlib import Path

import pytest

from publisher.errors import OriginError, SpaceError
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.pelican.owner import this_process
from tests.support.images.trees import private_umask
from tests.support.machine import child_process

CONTENT = b"a SIF\n" * 1000
SIF, INDEX = "sif/ab/x.sif", "manifest/index.json"


@pytest.fixture
def origin(tmp_path: Path) -> DirectoryOrigin:
    return DirectoryOrigin(tmp_path / "origin")


def put(origin: DirectoryOrigin, source: Path) -> bool:
    return origin.put(SIF, source, sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_looking_makes_no_directory(origin: DirectoryOrigin) -> None:
    assert origin.recover() == []
    assert list(origin.names()) == []
    assert origin.size(SIF) is None
    origin.remove(SIF)
    assert not origin.root.exists()


def test_everything_is_open_to_readers_whatever_the_umask(tmp_path: Path, origin: DirectoryOrigin) -> None:
    source = tmp_path / "built.sif"
    with private_umask():
        source.write_bytes(CONTENT)
        put(origin, source)
        origin.replace(INDEX, b"1")
        origin.put_bytes("manifest/shards/y.json", b"{}")
    directories = ("", "sif", "sif/ab", "manifest", "manifest/shards")
    assert [oct(mode(origin.root / path)) for path in directories] == ["0o755"] * len(directories)
    assert [oct(mode(origin.root / name)) for name in origin.names()] == ["0o644"] * 3
    assert mode(origin.root / ".incoming") == 0o700
    assert mode(source) == 0o600


def test_where_there_is_no_room_no_byte_is_copied(tmp_path: Path) -> None:
    seen: list[int] = []

    def free(descriptor: int) -> int:
        seen.append(os.fstat(descriptor).st_size)
        return len(CONTENT) - len(seen) % 2

    origin = DirectoryOrigin(tmp_path / "origin", free=free)
    with os.fdopen(os.memfd_create("built.sif"), "r+b") as file:  # on a device of its own, so that no block can be shared
        file.write(CONTENT)
        file.flush()
        source = Path(f"/proc/self/fd/{file.fileno()}")
        with pytest.raises(SpaceError, match=r"for a SIF of .*B: .*B are free"):
            put(origin, source)
        assert seen == [0], "it was asked when the upload had nothing in it"
        assert list(origin.names()) == []
        assert list((origin.root / ".incoming").iterdir()) == []
        assert put(origin, source), "with just enough"


def test_an_object_is_a_file_of_its_own(tmp_path: Path, origin: DirectoryOrigin) -> None:
    source = tmp_path / "built.sif"
    source.write_bytes(CONTENT)
    put(origin, source)
    status = (origin.root / SIF).stat()
    assert status.st_ino != source.stat().st_ino
    assert status.st_nlink == 1
    assert list((origin.root / ".incoming").iterdir()) == []


def test_a_source_on_another_file_system_is_copied_in_constant_memory(tmp_path: Path, origin: DirectoryOrigin) -> None:
    size = 16 << 20
    content = CONTENT + bytes(size - len(CONTENT))
    descriptor = os.memfd_create("built.sif")
    os.write(descriptor, CONTENT)
    os.truncate(descriptor, size)
    source = Path(f"/proc/self/fd/{descriptor}")
    assert source.stat().st_dev != tmp_path.stat().st_dev
    tracemalloc.start()
    try:
        assert origin.put(SIF, source, sha256=hashlib.sha256(content).hexdigest(), size=size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        os.close(descriptor)
    assert origin.read(SIF) == content
    assert peak < size // 4


def test_the_area_of_uploads_is_out_of_bounds(origin: DirectoryOrigin) -> None:
    origin.put_bytes(SIF, b"")
    (origin.root / ".incoming/upload").touch()
    for use in (
        lambda: origin.put_bytes(".incoming/upload", b""),
        lambda: origin.replace(".incoming/upload", b""),
        lambda: origin.read(".incoming/upload"),
        lambda: origin.size(".incoming/upload"),
        lambda: origin.remove(".incoming/upload"),
        lambda: list(origin.names(".incoming")),
    ):
        with pytest.raises(OriginError, match=r"\.incoming is reserved for the origin itself"):
            use()
    assert list(origin.names()) == [SIF]


def test_what_is_reached_through_a_link_is_no_object_and_nothing_is_stored_there(origin: DirectoryOrigin, tmp_path: Path) -> None:
    origin.put_bytes(SIF, b"")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"kept")
    (origin.root / "way").symlink_to(tmp_path / "outside")
    (origin.root / "file").symlink_to(tmp_path / "outside/file")
    (origin.root / "loop").symlink_to("loop")
    for name in ("way/file", "file", "loop", "loop/x"):
        assert origin.read(name) is None
        assert origin.size(name) is None
        origin.remove(name)
        for store in (origin.put_bytes, origin.replace):
            with pytest.raises(OriginError):
                store(name, b"")
    assert list(origin.names()) == [SIF]
    assert (tmp_path / "outside/file").read_bytes() == b"kept"


def test_a_directory_that_is_itself_behind_a_link_serves(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    origin = DirectoryOrigin(tmp_path / "link/origin")
    assert origin.put_bytes(SIF, b"1")
    assert origin.read(SIF) == b"1"
    assert (tmp_path / "disk/origin" / SIF).exists()


def test_what_an_ordinary_user_may_not_do_is_an_error(origin: DirectoryOrigin) -> None:
    origin.put_bytes(SIF, b"")
    (origin.root / "sif/ab").chmod(0o555)
    (origin.root / "sif").chmod(0)

    def use() -> None:
        for refused in (
            lambda: origin.read(SIF),
            lambda: origin.size(SIF),
            lambda: origin.remove(SIF),
            lambda: list(origin.names("sif/ab")),
        ):
            with pytest.raises(OriginError, match="Permission denied"):
                refused()

    child_process.unprivileged(use)
    (origin.root / "sif").chmod(0o755)
    assert origin.read(SIF) == b""


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OriginError, match="cannot store"):
        DirectoryOrigin(tmp_path / "file/origin").put_bytes(SIF, b"")


def test_an_object_is_as_old_as_its_storing_and_not_as_its_source(origin: DirectoryOrigin, tmp_path: Path) -> None:
    """What no manifest names goes when it is old: a build that was waiting for its upload is not."""
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    os.utime(source, (1, 1))
    put(origin, source)
    modified = origin.modified(SIF)
    assert modified is not None
    assert modified > 10**9
    assert origin.modified(INDEX) is None


def test_the_sha256_is_that_of_the_bytes_that_are_there_now(origin: DirectoryOrigin) -> None:
    assert origin.sha256(SIF) is None
    origin.put_bytes(SIF, CONTENT)
    assert origin.sha256(SIF) == hashlib.sha256(CONTENT).hexdigest()
    (origin.root / SIF).write_bytes(b"damaged")
    assert origin.sha256(SIF) == hashlib.sha256(b"damaged").hexdigest()


def test_the_upload_of_another_host_is_swept_when_it_is_a_day_old(origin: DirectoryOrigin) -> None:
    """Hosts that share the directory may not see each other's locks."""
    origin.put_bytes(SIF, CONTENT)
    mine = this_process()
    upload = origin.root / ".incoming" / mine._replace(host="0" * 16).new_upload_name()
    upload.write_bytes(CONTENT)
    killed = origin.root / ".incoming" / mine.new_upload_name()
    killed.write_bytes(CONTENT)
    (line,) = origin.recover()
    assert killed.name in line
    assert upload.exists()
    os.utime(upload, (time.time() - 90000, time.time() - 90000))
    (line,) = origin.recover()
    assert upload.name in line
