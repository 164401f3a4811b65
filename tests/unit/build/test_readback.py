"""What reading back compares; tests/system/build/test_readback.py has whole builds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from publisher.build import readback
from publisher.build.readback import ExpectedFiles, ReadbackError
from publisher.fileindex.format import FileIndexWriter
from publisher.layers.flatten import flatten
from publisher.layers.listing import write_listing
from publisher.layers.survey import survey
from tests.support.images.layers import Entry, directory, file, hardlink, symlink, tar
from tests.support.images.tar_stream import NOW, squashed

if TYPE_CHECKING:
    from pathlib import Path

FILES = [file(f"f{number}", b"%d" % number * 100) for number in range(2000)]
TREE = [directory("d"), *FILES, file("d/large", b"large" * 4_000_000), symlink("l", "d"), hardlink("h", "f7"), Entry("fifo", "p")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    where = tmp_path_factory.mktemp("made")
    return squashed([tar(TREE)], where), written_index(where)


def written_index(where: Path) -> Path:
    indexes = sorted(where.glob("*.index"))
    plan = flatten(indexes).finish()
    with (where / "files").open("wb") as out:
        files = FileIndexWriter(out)
        write_listing(files, plan, indexes, (), survey(plan, indexes, NOW).newest)
        files.close()
    return where / "files"


def test_a_sif_has_what_its_file_index_says(made: tuple[Path, Path]) -> None:
    readback.check(made[0], ExpectedFiles.of(made[1]), deadline=600)


@pytest.mark.parametrize(
    "changed",
    [
        file("f7", b"8" * 100),
        file("f7", b"7" * 101),
        file("f7", b"7" * 100, mode=0o755),
        file("f7", b"7" * 100, uid=1),
        file("f7", b"7" * 100, mtime=1_600_000_001),
        symlink("other", "d"),
        file(".wh.f7", b""),
    ],
)
def test_every_difference_is_found(made: tuple[Path, Path], changed: Entry, tmp_path: Path) -> None:
    other = squashed([tar(TREE), tar([changed])], tmp_path)
    with pytest.raises(ReadbackError, match="does not have the files"):
        readback.check(other, ExpectedFiles.of(made[1]), deadline=600)


def test_a_sif_that_is_cut_off_cannot_be_read_back(made: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "sif").write_bytes(made[0].read_bytes()[:-5000])
    with pytest.raises(ReadbackError, match="cannot be read back"):
        readback.check(tmp_path / "sif", ExpectedFiles.of(made[1]), deadline=600)


def test_reading_back_ends_at_its_deadline(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ExpectedFiles.of(made[1])
    times = iter([0.0, 1.0, 61.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times, 61.0))
    with pytest.raises(ReadbackError, match="before the deadline"):
        readback.check(made[0], expected, deadline=60)
