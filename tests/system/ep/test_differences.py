"""Many processes that want the same difference, and processes that are killed in the middle of one."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.cache import counters, pins
from publisher.resolver.cache.cache import Cache
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.partial import PartialFile
from tests.support.ep.chunked import BLOCK, content_of, with_table
from tests.support.ep.execution_point import lay_down
from tests.support.machine import child_process
from tests.support.osdf.file_server import FileServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.contract.records import Sif

pytestmark = pytest.mark.system

JOBS = 200
BASE = [f"base {number}" for number in range(150)]
OLD, NEW = content_of(*BASE, "old"), content_of("first", *BASE, "new", "more")
RANGES = [f"bytes={BLOCK}-{2 * BLOCK - 1}", f"bytes={152 * BLOCK}-{154 * BLOCK - 1}"]


class Host:
    """A cache with a version of an image, and a server with that and the next one."""

    def __init__(self, root: Path, server: FileServer) -> None:
        self.server = server
        self.cache = Cache(str(root / "cache"))
        self.old, self.new = (self.offer(content, root / "origin") for content in (OLD, NEW))
        self.ensure(self.old)

    def offer(self, content: bytes, origin: Path) -> Sif:
        sif, objects = with_table(content)
        lay_down(objects, origin)
        return sif

    def ensure(self, sif: Sif) -> bytes:
        path, _ = self.cache.ensure(sif, [open_source(self.server.url)], timeout=200)
        return Path(path).read_bytes()

    def ranges(self) -> list[str]:
        return [asked for path, asked in self.server.requests if path == f"/{self.new.path}"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with FileServer(tmp_path / "origin") as server:
        yield Host(tmp_path, server)


def test_two_hundred_jobs_at_once_make_one_difference(host: Host) -> None:
    def job() -> None:
        assert host.ensure(host.new) == NEW

    children = [child_process.start(job) for _ in range(JOBS)]
    assert [child_process.end(child) for child in children] == [0] * JOBS
    assert host.ranges() == RANGES
    counts = counters.read(host.cache.root)
    assert (counts.downloads, counts.hits) == (2, JOBS - 1)
    assert counts.copied == 151 * BLOCK


@pytest.mark.parametrize("kept", [0.0, 0.5], ids=["before a write", "within a write"])
def test_after_a_kill_at_any_write_the_next_job_continues(host: Host, kept: float, monkeypatch: pytest.MonkeyPatch) -> None:
    write = PartialFile._write
    at = 0
    while True:
        left = at

        def dying(part: PartialFile, view: memoryview) -> None:
            nonlocal left
            if left == 0:
                write(part, view[: int(len(view) * kept)])
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            write(part, view)

        def job() -> None:
            with monkeypatch.context() as patched:
                patched.setattr(PartialFile, "_write", dying)
                host.ensure(host.new)

        host.server.requests.clear()
        status = child_process.end(child_process.start(job))
        before, size = host.ranges(), _size(host.cache.entries.part_path(host.new.sha256))
        assert host.ensure(host.new) == NEW
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert len(host.ranges()) <= len(before) + sum(int(each.rpartition("-")[2]) >= size for each in RANGES)
        assert pins.count_pins(host.cache.root) == {}
        host.cache.entries.remove(host.new.sha256)
        at += 1
    assert at > len(NEW) // (1 << 18), "each write was one of the moments"


def _size(path: str) -> int:
    return Path(path).stat().st_size if Path(path).exists() else 0
