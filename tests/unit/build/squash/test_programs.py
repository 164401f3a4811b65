"""Calls of mksquashfs: the real one where it must work, a stand-in on PATH for other versions and failures."""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from publisher.build.squash.find import find_squasher
from publisher.build.squash.programs import Mksquashfs, ProgramSquasher, Tar2sqfs
from publisher.errors import BuildError, SpaceError
from publisher.layers.survey import StreamSurvey
from publisher.system.command import UnixAccount
from tests.support.images import raw_tar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOTALS = StreamSurvey(newest=1_600_000_000, unpacked_size=7, root=(0o1755, 0, 0))
OFFSET = 4096


def squash(where: Path, stream: bytes, totals: StreamSurvey = TOTALS, made_by: ProgramSquasher | None = None) -> Path:
    out = where / "out"
    with (made_by or Mksquashfs()).stream(out, totals, offset=OFFSET, deadline=60) as squashing:
        squashing.write(stream)
    return out


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a mksquashfs on PATH that :func:`says` writes."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return place / "mksquashfs"


def says(stand_in: Path, script: str, version: str = "4.5.1") -> None:
    stand_in.write_text(
        f'#!/bin/sh\nif [ "$1" = -version ]; then echo "mksquashfs version {version} (2022/03/17)"; exit 0; fi\n{script}\n'
    )
    stand_in.chmod(0o755)


@pytest.mark.parametrize("version", ["4.4", "4.3-git", "3.11"])
def test_a_mksquashfs_that_reads_no_tar_is_refused(version: str, stand_in: Path) -> None:
    says(stand_in, "", version)
    with pytest.raises(BuildError, match=r"cannot read tar streams; version 4\.5 is the first"):
        Mksquashfs()


@pytest.mark.parametrize("version", ["4.5", "4.5.1", "4.6.1-e1", "5.0"])
def test_the_version_of_mksquashfs_is_parsed(version: str, stand_in: Path) -> None:
    says(stand_in, "", version)
    assert Mksquashfs().version == version


def test_the_squasher_is_the_one_that_the_host_has(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mksquashfs; tar2sqfs if it is too old; the failure of mksquashfs if neither is there."""
    says(stand_in, "", "4.5")
    assert (find_squasher("gzip").name, find_squasher("gzip").version) == ("mksquashfs", "4.5")
    assert (find_squasher().name, find_squasher().versions["mksquashfs"]) == ("publisher", "4.5")
    says(stand_in, "", "4.4")
    assert find_squasher("gzip").name == "tar2sqfs"
    monkeypatch.setattr("publisher.system.command._DEFAULT_PATH", str(stand_in.parent))
    monkeypatch.setenv("PATH", f"{stand_in.parent}:/usr/sbin")  # which has no tar2sqfs
    with pytest.raises(BuildError, match=r"4\.4 cannot read tar streams; version 4\.5 is the first") as caught:
        find_squasher()
    assert "tar2sqfs" in str(caught.value.hint)


def called(where: Path, stand_in: Path, totals: StreamSurvey = TOTALS, **more: object) -> list[str]:
    says(stand_in, f'cat > /dev/null; echo "$SOURCE_DATE_EPOCH" "$@" > {where}/called')
    squash(where, raw_tar.END, totals, Mksquashfs(**more))  # type: ignore[arg-type]  # its own
    return (where / "called").read_text().split()


def test_mksquashfs_gets_options_for_everything_that_depends_on_time_or_host(tmp_path: Path, stand_in: Path) -> None:
    arguments = called(tmp_path, stand_in, memory=99)
    assert arguments[:4] == ["1600000000", "-", str(tmp_path / "out"), "-tar"]
    for option, value in [
        *(("-offset", "4096"), ("-mem", "99M"), ("-comp", "zstd"), ("-Xcompression-level", "3")),
        *(("-root-mode", "1755"), ("-root-uid", "0"), ("-root-gid", "0")),
    ]:
        assert arguments[arguments.index(option) + 1] == value
    assert "-no-duplicates" in arguments, "its search for duplicates is a race, and quadratic in files of one size"


def test_compression_can_be_one_that_old_kernels_read(tmp_path: Path, stand_in: Path) -> None:
    arguments = called(tmp_path, stand_in, compression="gzip")
    assert arguments[arguments.index("-comp") + 1] == "gzip"


def test_the_level_is_a_choice_and_the_usual_one_is_not_mentioned(tmp_path: Path, stand_in: Path) -> None:
    arguments = called(tmp_path, stand_in, level=19)
    assert arguments[arguments.index("-Xcompression-level") + 1] == "19"
    levels = {level: find_squasher("zstd", level=level).compression for level in (None, 3, 19)}
    assert levels == {None: "zstd", 3: "zstd", 19: "zstd 19"}
    assert find_squasher("gzip").compression == "gzip"


@pytest.mark.system
def test_tar2sqfs_takes_the_level_too(tmp_path: Path) -> None:
    sizes = []
    for level in (1, 15):
        (tmp_path / str(level)).mkdir()
        content = b"".join(b"%d squared is %d\n" % (number, number * number) for number in range(20_000))
        stream = raw_tar.file(b"a", content) + raw_tar.END
        sizes.append(squash(tmp_path / str(level), stream, made_by=Tar2sqfs(level=level)).stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("said", "kind", "problem"),
    [
        ("FATAL ERROR: Write failed because No space left on device", SpaceError, "no space left"),
        ("FATAL ERROR: something else", BuildError, "something else"),
    ],
)
def test_a_failure_is_reported_with_its_reason(
    said: str, kind: type[Exception], problem: str, tmp_path: Path, stand_in: Path
) -> None:
    says(stand_in, f'echo "{said}" >&2; exit 1')
    with pytest.raises(kind, match=problem):
        squash(tmp_path, bytes(1 << 22))


PROGRAMS: dict[str, Callable[[str, int], ProgramSquasher]] = {
    "mksquashfs": Mksquashfs,
    "tar2sqfs": lambda compression, _: Tar2sqfs(compression),
}


@pytest.mark.system
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_the_same_stream_gives_the_same_bytes_with_space_in_front(program: str, compression: str, tmp_path: Path) -> None:
    digests = set()
    for name, memory in (("one", 128), ("two", 64)):
        (tmp_path / name).mkdir()
        made_by = PROGRAMS[program](compression, memory)
        content = squash(tmp_path / name, raw_tar.file(b"a") + raw_tar.END, made_by=made_by).read_bytes()
        assert [path.name for path in (tmp_path / name).iterdir()] == ["out"]
        assert content[:OFFSET] == bytes(OFFSET)
        digests.add(hashlib.sha256(content).hexdigest())
    assert len(digests) == 1
    listed = ["unsquashfs", "-lln", "-offset", str(OFFSET), str(tmp_path / "one/out")]
    said = subprocess.run(listed, capture_output=True, check=True, text=True, env=os.environ | {"TZ": "UTC"}, timeout=60).stdout
    assert [line.split() for line in said.splitlines()] == [
        ["drwxr-xr-t", "0/0", "24", "2020-09-13", "12:26", "squashfs-root"],
        ["-rw-r--r--", "0/0", "7", "2020-09-13", "12:26", "squashfs-root/a"],
    ]


@pytest.mark.system
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_stream_that_is_not_a_tar_archive_is_refused(program: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=f"{program} failed with status 1"):
        squash(tmp_path, b"no tar archive".ljust(1 << 20, b"."), made_by=PROGRAMS[program]("zstd", 128))
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == []


@pytest.mark.system
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_root_directory_has_the_mode_of_the_totals_and_the_newest_time(program: str, tmp_path: Path) -> None:
    out = squash(tmp_path, raw_tar.file(b"a", mtime=raw_tar.number(5)) + raw_tar.END, made_by=PROGRAMS[program]("zstd", 128))
    subprocess.run(["unsquashfs", "-d", tmp_path / "tree", "-offset", str(OFFSET), out], check=True, capture_output=True)
    status = (tmp_path / "tree").stat()
    assert (stat.S_IMODE(status.st_mode), int(status.st_mtime)) == (0o1755, TOTALS.newest)
    assert int((tmp_path / "tree/a").stat().st_mtime) == 5


@pytest.mark.system
def test_a_copy_without_space_is_reported_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(SpaceError, match="cannot copy the squashfs into the SIF: No space left"):
        squash(tmp_path, raw_tar.file(b"a") + raw_tar.END, made_by=Tar2sqfs())
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == []


@pytest.mark.parametrize("make", [Mksquashfs, Tar2sqfs])
def test_another_account_makes_the_same_file_in_a_directory_that_it_cannot_enter(
    make: type[Mksquashfs | Tar2sqfs], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: squashing as another account; only root starts programs as one")
    entry, stream = pwd.getpwnam("nobody"), raw_tar.file(b"a", b"content") + raw_tar.END
    for name, account in (("own", None), ("nobody", UnixAccount(entry.pw_uid, entry.pw_gid))):
        (tmp_path / name).mkdir(mode=0o700)
        squash(tmp_path / name, stream, made_by=make(account=account))
    made = tmp_path / "nobody/out"
    assert made.read_bytes() == (tmp_path / "own/out").read_bytes()
    assert (made.stat().st_uid, made.stat().st_mode & 0o777) == (0, 0o644)
    assert [path.name for path in made.parent.iterdir()] == ["out"]
