from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.errors import FetchError, ReadError
from publisher.resolver.select import sandbox

if TYPE_CHECKING:
    from pathlib import Path

BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / ".images" / "ab" / "cdef"
    (path / ".singularity.d").mkdir(parents=True)
    (path / ".singularity.d" / "runscript").write_text("#!/bin/sh\n")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    (path / "failures").mkdir(parents=True)
    return path


def break_reads(monkeypatch: pytest.MonkeyPatch, size: int = 4096) -> None:
    """Make reads of ``size`` bytes fail like those of a disk: the children of this process inherit it."""
    read = os.read

    def fail(descriptor: int, count: int) -> bytes:
        if count == size:
            raise BROKEN
        return read(descriptor, count)

    monkeypatch.setattr(os, "read", fail)


def test_a_sandbox_is_its_directory_without_links(image: Path, tmp_path: Path) -> None:
    (tmp_path / "name").symlink_to(".images/ab/cdef")
    assert sandbox.open_directory(str(tmp_path / "name")) == str(image)


def test_a_sandbox_whose_files_cannot_be_read_does_not_open(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_reads(monkeypatch)
    with pytest.raises(ReadError, match="Input/output error"):
        sandbox.open_directory(str(image))


def test_a_sandbox_without_such_files_opens(image: Path) -> None:
    for name in ("runscript", "labels.json"):
        (image / ".singularity.d" / name).unlink(missing_ok=True)
        os.mkfifo(image / ".singularity.d" / name)
    assert sandbox.open_directory(str(image)) == str(image), "nor does a file of another kind delay it"
    (image / ".singularity.d").rename(image / "away")
    assert sandbox.open_directory(str(image)) == str(image)
    with pytest.raises(FetchError) as failure:
        sandbox.open_directory(str(image / "none"))
    assert not isinstance(failure.value, ReadError)


def test_what_was_read_is_not_read_again_for_seconds(image: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.open_directory(str(image), str(cache))
    break_reads(monkeypatch)
    assert sandbox.open_directory(str(image), str(cache)) == str(image)
    (note,) = (cache / "failures").iterdir()
    os.utime(note, (note.stat().st_mtime - sandbox.READ_LIFETIME,) * 2)
    with pytest.raises(ReadError):
        sandbox.open_directory(str(image), str(cache))
