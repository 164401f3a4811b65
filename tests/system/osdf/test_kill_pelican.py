"""An uploader to a real XRootD origin that is killed (SIGKILL): before each of its requests, and at random moments."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import ROOT
from tests.support.osdf import origin

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.targets.origins.pelican import PelicanOrigin

pytestmark = pytest.mark.system
SIZE = 8 << 20
CONTENT = random.Random(6).randbytes(SIZE)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIF, SHARD, INDEX = f"sif/{SHA256[:2]}/{SHA256}.sif", "manifest/shards/y.json", "manifest/index.json"
MOMENTS = 10


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "built.sif"
    path.write_bytes(CONTENT)
    return path


def start(place: Path, source: Path, at: int = 0) -> subprocess.Popen[str]:
    """An uploader that begins, and is killed before its request number ``at``."""
    there = origin.running()
    said = {
        "director": there.director,
        "prefix": origin.prefix(place),
        "authority": str(there.servers.authority),
        "key": str(there.key),
        "keyid": there.servers.issuer.keyid,
        "issuer": there.servers.issuer.url,
        "source": str(source),
        "at": at,
        "sif": SIF,
        "shard": SHARD,
        "index": INDEX,
    }
    command = [sys.executable, "-m", "tests.support.osdf.killed_upload"]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert started.stdin is not None
    assert started.stdout is not None
    started.stdin.write(json.dumps(said))
    started.stdin.close()
    assert started.stdout.readline() == "begins\n"
    return started


def ended(started: subprocess.Popen[str]) -> int:
    """Its exit status, negative for a signal."""
    with started:
        return started.wait(120)


def upload(there: PelicanOrigin, source: Path) -> None:
    there.put(SIF, source, sha256=SHA256, size=SIZE)
    there.put_bytes(SHARD, b"{}")
    there.replace(INDEX, b"2")


def stored(place: Path) -> dict[str, bytes]:
    """What lies on the origin's disk."""
    top = origin.running().servers.data / origin.prefix(place).lstrip("/")
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def incoming(place: Path) -> list[str]:
    return sorted(name for name in stored(place) if name.startswith(".incoming/"))


def assert_sound(place: Path) -> None:
    """Whatever has a name has its bytes, and the index comes last."""
    found = stored(place)
    assert {name for name in found if not name.startswith(".incoming/")} <= {SIF, SHARD, INDEX}
    assert found.get(SIF) in (None, CONTENT)
    assert found.get(SHARD) in (None, b"{}")
    assert found[INDEX] in (b"1", b"2")
    if found[INDEX] == b"2":
        assert {SIF, SHARD} <= set(found)


def assert_rerun_completes(place: Path, source: Path) -> int:
    """Sweeps, uploads again; how much was swept."""
    assert_sound(place)
    left = incoming(place)
    assert [line.split(" (")[0] for line in origin.directed(place).recover()] == [
        f"swept a killed upload: {name}" for name in left
    ]
    assert incoming(place) == []
    upload(origin.directed(place), source)
    assert_sound(place)
    assert stored(place)[INDEX] == b"2"
    assert incoming(place) == []
    return len(left)


def test_an_upload_that_is_killed_before_any_of_its_requests_costs_only_a_rerun(tmp_path: Path, source: Path) -> None:
    swept = 0
    for point in itertools.count():
        place = tmp_path / str(point)
        origin.directed(place).replace(INDEX, b"1")
        status = ended(start(place, source, point + 2))  # the first token is for the director
        if status == 0:
            break
        assert status == -signal.SIGKILL
        swept += assert_rerun_completes(place, source)
    assert swept > 5


def test_an_upload_that_is_killed_at_a_random_moment_costs_only_a_rerun(tmp_path: Path, source: Path) -> None:
    place = tmp_path / "whole"
    origin.directed(place).replace(INDEX, b"1")
    started = time.monotonic()
    upload(origin.directed(place), source)
    whole = time.monotonic() - started
    chance = random.Random()
    for point in range(MOMENTS):
        place = tmp_path / str(point)
        origin.directed(place).replace(INDEX, b"1")
        child = start(place, source)
        time.sleep(chance.uniform(0, whole))  # the moment is what is tried
        child.kill()
        assert ended(child) in (0, -signal.SIGKILL)
        assert_rerun_completes(place, source)
