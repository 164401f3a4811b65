"""Build processes that are killed while others build, and a run that is killed while they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.images.layers import file, tar
from tests.support.images.runnable import runnable
from tests.support.publisher.host import Host, environment
from tests.support.registries.registry import push_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.registries.registry import RegistryServer

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

GZIP = "--compression=gzip"
"""So that a program squashes, which can be made to hang."""
NAMES = [f"builds/image:{number}" for number in range(4)]
PATIENCE = 200.0
_WRAPPER = """#!/bin/sh
[ "$1" = -version ] && exec /usr/bin/mksquashfs "$@"
echo squash >>{where}/squashed
if mkdir {where}/hanging 2>/dev/null; then
    echo $PPID $$ >{where}/hanging/.ids && mv {where}/hanging/.ids {where}/hanging/ids
    exec sleep 1000
fi
exec /usr/bin/mksquashfs "$@"
"""


class Busy:
    """A sync of four images, two at a time, that has built three of them; mksquashfs hangs with the other one."""

    def __init__(self, host: Host, where: Path) -> None:
        self.host = host
        self.where = where
        self.sync = subprocess.Popen(
            [sys.executable, "-m", "publisher", "sync", "--json", "--builds=2", GZIP, *host.flags()],
            env=environment(host.where),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until((where / "hanging/ids").exists)
        self.builder, self.hanging = map(int, (where / "hanging/ids").read_text().split())
        until(lambda: len(list((host.state / "builds").glob("*/built.json"))) == 3)

    @property
    def squashed(self) -> int:
        return len((self.where / "squashed").read_text().splitlines())


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def busy(shared_path: Path, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Busy]:
    for name in NAMES:
        repository, tag = name.split(":")
        push_image(registry.address, repository, tag, [tar(runnable()), tar([file("which", tag.encode())])])
    place = shared_path / "bin"
    place.mkdir()
    place.chmod(0o777)  # another account runs mksquashfs
    (place / "mksquashfs").write_text(_WRAPPER.format(where=place))
    (place / "mksquashfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    host = Host(shared_path, registry)
    host.images(*NAMES)
    made = Busy(host, place)
    yield made
    made.sync.kill()
    made.sync.communicate()


def test_a_killed_build_process_fails_its_image_and_no_other(busy: Busy) -> None:
    os.kill(busy.builder, signal.SIGKILL)
    said, _ = busy.sync.communicate(timeout=PATIENCE)
    assert busy.sync.returncode == 1
    assert said.count('"published"') == 3
    assert "the process that built it ended: the build process was ended by signal 9" in said
    until(lambda: not runs(busy.hanging))
    assert set(busy.host.sync(GZIP).results.values()) == {"published", "unchanged"}
    assert busy.squashed == 5
    assert busy.host.leftovers() == []


def test_a_killed_run_loses_no_finished_build_and_leaves_no_process(busy: Busy) -> None:
    busy.sync.kill()
    busy.sync.communicate(timeout=PATIENCE)
    report = busy.host.sync(GZIP)  # waits for the processes that hold the lock
    assert set(report.results.values()) == {"published"}
    assert not runs(busy.builder)
    until(lambda: not runs(busy.hanging))
    assert busy.squashed == 5, "one of the first run was not finished"
    assert busy.host.leftovers() == []
