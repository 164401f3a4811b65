"""The readback: a SIF is published only if it has the files that were written into it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.build import readback
from publisher.build.local import LocalBuilder
from publisher.build.readback import ExpectedFiles
from publisher.build.sif import DATA_OFFSET
from publisher.build.squash.programs import Mksquashfs, ProgramSquasher, Squasher
from publisher.build.testrun import TestRunner
from publisher.errors import BuildError
from publisher.layers.stream.uncompressed import copy_path
from tests.support.images.built_layers import request
from tests.support.images.layers import directory, file, hardlink, symlink, tar
from tests.support.images.tar_stream import NOW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.layers.emit import Output
    from publisher.layers.survey import StreamSurvey
    from publisher.state.built import BuiltImage

pytestmark = pytest.mark.system

LAYER = tar(
    [
        directory("a b"),
        file("a b/blanks in it R 1 644 0 0 4 0", b"data"),
        file("new\nline R 1 644 0 0 4 0", b"line"),
        file("back\\slash", b"slash"),
        file("caf\udce9", b"bytes"),
        file("large", bytes(range(256)) * 2000, mode=0o755, uid=7, gid=8),
        file("again", bytes(range(256)) * 2000),
        file("empty", b""),
        file("nfsnobody", b"mine", uid=0xFFFFFFFE, gid=1 << 31),
        hardlink("linked", "large"),
        symlink("lies", "somewhere\nx R 1 644 0 0 4 0"),
    ]
)


class Damaging(ProgramSquasher):
    """A mksquashfs whose first ``times`` files lack a block, as after its race; the data that follows moves up."""

    def __init__(self, times: int) -> None:
        self._real = Mksquashfs()
        self.name, self.version, self.compression = self._real.name, self._real.version, self._real.compression
        self.versions = self._real.versions
        self.times = times
        self.made = 0

    @contextlib.contextmanager
    def stream(self, out: Path, totals: StreamSurvey, *, offset: int, deadline: float) -> Iterator[Output]:
        with self._real.stream(out, totals, offset=offset, deadline=deadline) as stream:
            yield stream
        self.made += 1
        if self.made <= self.times:
            damage(out)


def damage(sif: Path) -> None:
    """Move the data of the image up by a few bytes, right after the squashfs' superblock of 96 bytes."""
    content = bytearray(sif.read_bytes())
    start = DATA_OFFSET + 96
    content[start : start + 2000] = content[start + 10 : start + 2010]
    sif.write_bytes(content)


def build(where: Path, squasher: Squasher) -> BuiltImage:
    (where / "scratch").mkdir()
    tester = TestRunner("image-test", where / "scratch")
    builder = LocalBuilder(where / "builds", squasher, tester, now=lambda: NOW)
    return builder.build(request([LAYER], where / "blobs"), lambda *_: None)


def test_all_contents_are_read_back_whatever_the_names(shared_path: Path) -> None:
    built = build(shared_path, Mksquashfs())
    readback.check(built.sif, ExpectedFiles.of(built.file_index), deadline=60)


def test_a_lost_block_is_detected(shared_path: Path) -> None:
    built = build(shared_path, Mksquashfs())
    damage(built.sif)
    with pytest.raises(BuildError, match=r"does not have the files|cannot be read back"):
        readback.check(built.sif, ExpectedFiles.of(built.file_index), deadline=60)


@pytest.mark.parametrize("other", [b"other", b"dat4"])
def test_other_content_in_a_valid_file_system_is_detected(shared_path: Path, other: bytes) -> None:
    (shared_path / "one").mkdir()
    (shared_path / "two").mkdir()
    one = build(shared_path / "one", Mksquashfs())
    tester = TestRunner("image-test", shared_path / "one/scratch")
    layer = tar([file("a b/blanks in it R 1 644 0 0 4 0", other)])
    builder = LocalBuilder(shared_path / "two/builds", Mksquashfs(), tester, now=lambda: NOW)
    two = builder.build(request([LAYER, layer], shared_path / "two/blobs"), lambda *_: None)
    with pytest.raises(BuildError, match="does not have the files"):
        readback.check(two.sif, ExpectedFiles.of(one.file_index), deadline=60)


def test_a_damaged_sif_is_made_again(shared_path: Path) -> None:
    squasher = Damaging(times=1)
    built = build(shared_path, squasher)
    assert squasher.made == 2
    readback.check(built.sif, ExpectedFiles.of(built.file_index), deadline=60)


def test_an_uncompressed_copy_gives_the_same_sif_and_is_deleted(shared_path: Path) -> None:
    expected = build(shared_path, Mksquashfs()).sha256
    asked = replace(request([LAYER], shared_path / "blobs"), copies=shared_path)
    copy_path(shared_path, asked.layers[0]).write_bytes(LAYER)
    asked.layers[0].write_bytes(b"BZh: refused if it were read")
    tester = TestRunner("image-test", shared_path / "scratch")
    builder = LocalBuilder(shared_path / "again", Mksquashfs(), tester, now=lambda: NOW)
    assert builder.build(asked, lambda *_: None).sha256 == expected
    assert not copy_path(shared_path, asked.layers[0]).exists()


def test_other_bytes_in_an_uncompressed_copy_are_not_published(shared_path: Path) -> None:
    (shared_path / "scratch").mkdir()
    tester = TestRunner("image-test", shared_path / "scratch")
    builder = LocalBuilder(shared_path / "builds", Mksquashfs(), tester, now=lambda: NOW)
    asked = replace(request([LAYER], shared_path / "blobs"), copies=shared_path)
    copy_path(shared_path, asked.layers[0]).write_bytes(LAYER.replace(b"data", b"dat4"))
    with pytest.raises(BuildError, match="does not have the files"):
        builder.build(asked, lambda *_: None)
    assert not copy_path(shared_path, asked.layers[0]).exists(), "the next build reads the blob"
    assert builder.build(asked, lambda *_: None).size > 0


def test_a_sif_that_is_damaged_every_time_is_not_published(shared_path: Path) -> None:
    squasher = Damaging(times=100)
    with pytest.raises(BuildError, match=r"does not have the files|cannot be read back"):
        build(shared_path, squasher)
    assert squasher.made == 3
    assert list((shared_path / "builds").iterdir()) == []


def test_a_file_that_is_not_a_sif_is_reported(tmp_path: Path) -> None:
    (tmp_path / "sif").write_bytes(bytes(DATA_OFFSET + 4096))
    (tmp_path / "files").write_bytes(b"")
    with pytest.raises(BuildError, match="cannot be read back"):
        readback.check(tmp_path / "sif", ExpectedFiles.of(tmp_path / "files"), deadline=60)
