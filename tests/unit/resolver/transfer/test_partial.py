"""Copies into large partial files, whose blocks are written past the page cache where the file system allows it."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from publisher.contract.records import Sif
from publisher.resolver.transfer import partial
from publisher.resolver.transfer.partial import PartialFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b"x" * 32 + b"SIF_MAGIC\0" + random.Random(0).randbytes(3 << 20)
SIF = Sif("sif/x", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
CUTS = (0, 100, 4096, 20_000, 20_001, 1 << 20, (1 << 20) + 4095, len(CONTENT))
Write = tuple[int, int, int]
"""A write: descriptor, first byte, number of bytes."""


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "_DIRECT", len(CONTENT))


@pytest.fixture
def seed(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "seed"
    path.write_bytes(b"before" + CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def assemble(part: PartialFile, seed: int) -> None:
    """Copy the content from the seed and append it, in turn."""
    for number, (start, stop) in enumerate(zip(CUTS, CUTS[1:])):
        if number % 2:
            part.append(bytearray(CONTENT[start:stop]))
        else:
            assert part.copy(seed, len(b"before") + start, stop - start) == stop - start


def writes(monkeypatch: pytest.MonkeyPatch, refusal: int | None = None) -> list[Write]:
    """Return the list of writes to come; let those to a second descriptor fail with an error number."""
    seen: list[Write] = []
    pwrite = os.pwrite

    def watched(descriptor: int, view: memoryview, start: int) -> int:
        if refusal is not None and seen and descriptor != seen[0][0]:
            raise OSError(refusal, os.strerror(refusal))
        seen.append((descriptor, start, len(view)))
        return pwrite(descriptor, view, start)

    monkeypatch.setattr(os, "pwrite", watched)
    return seen


def test_a_large_file_is_right_whatever_the_file_system_can_do(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "x.part"
    with closing(PartialFile(str(path), SIF)) as part:
        assemble(part, seed)
        assert part.finish()
    assert path.read_bytes() == CONTENT


def test_whole_blocks_of_a_copy_are_written_past_the_page_cache(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_DIRECT", 0)  # whatever the file system can do
    seen = writes(monkeypatch)
    with closing(PartialFile(str(tmp_path / "x.part"), SIF)) as part:
        assemble(part, seed)
        assert part.finish()
        direct = [write for write in seen if write[0] != part.descriptor]
    assert all(start % 4096 == count % 4096 == 0 for _, start, count in direct)
    copied = sum(stop - start for start, stop in zip(CUTS[::2], CUTS[1::2]))
    assert copied - sum(count for _, _, count in direct) < 2 * 4096 * len(CUTS)


def test_appended_and_smaller_files_stay_in_memory_for_their_job(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = writes(monkeypatch)
    with closing(PartialFile(str(tmp_path / "appended"), SIF)) as part:
        part.append(bytearray(CONTENT))
        assert {write[0] for write in seen} == {part.descriptor}
    seen.clear()
    monkeypatch.setattr(partial, "_DIRECT", len(CONTENT) + 1)
    with closing(PartialFile(str(tmp_path / "smaller"), SIF)) as part:
        assemble(part, seed)
        assert {write[0] for write in seen} == {part.descriptor}


@pytest.mark.parametrize("at", ["open", "write"])
def test_a_file_system_without_such_writes_gets_ordinary_ones(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    plain_open = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_WRONLY:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return plain_open(path, flags, mode, dir_fd=dir_fd)

    if at == "open":
        monkeypatch.setattr(os, "open", refusing)
    else:
        monkeypatch.setattr(os, "O_DIRECT", 0)
    seen = writes(monkeypatch, errno.EINVAL)
    with closing(PartialFile(str(tmp_path / "x.part"), SIF)) as part:
        part.append(bytearray(CONTENT[:100]))
        part.copy(seed, len(b"before") + 100, len(CONTENT) - 100)
        assert part.finish()
        assert {write[0] for write in seen} == {part.descriptor}


def test_a_full_disk_is_an_error_there_too(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "O_DIRECT", 0)
    writes(monkeypatch, errno.ENOSPC)
    with closing(PartialFile(str(tmp_path / "x.part"), SIF)) as part:
        part.append(bytearray(CONTENT[:100]))
        with pytest.raises(OSError, match="No space left"):
            part.copy(seed, len(b"before") + 100, len(CONTENT) - 100)


def test_a_large_file_continues_behind_what_is_kept(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "x.part"
    with closing(PartialFile(str(path), SIF)) as part:
        part.append(bytearray(b"wrong" * 5000))
        part.keep(0)
        part.copy(seed, len(b"before"), len(CONTENT) - 5)
        part.keep(10_000)
    with closing(PartialFile(str(path), SIF)) as part:
        part.copy(seed, len(b"before") + part.size, len(CONTENT) - part.size)
        assert part.finish()
    assert path.read_bytes() == CONTENT
