"""An uploader to a real XRootD origin that is killed (SIGKILL): before each of its requests, and at random moments."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.federation.address import Address
from publisher.origins.pelican import PelicanOrigin, Ways
from tests.support import children, pelican

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from publisher.federation.tokens import Right, Tokens

pytestmark = pytest.mark.system
SIZE = 8 << 20
CONTENT = random.Random(6).randbytes(SIZE)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIF, SHARD, INDEX = f"sif/{SHA256[:2]}/{SHA256}.sif", "manifest/shards/y.json", "manifest/index.json"
MOMENTS = 10


class Deadly:
    """Tokens whose holder is killed before its request number ``at``."""

    def __init__(self, tokens: Tokens, at: int) -> None:
        self._tokens = tokens
        self._left = itertools.count(at, -1)

    def bearer(self, rights: Sequence[Right], base: str) -> str | None:
        if next(self._left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._tokens.bearer(rights, base)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "built.sif"
    path.write_bytes(CONTENT)
    return path


def origin(place: Path, at: int = -1) -> PelicanOrigin:
    there = pelican.running()
    ways = Ways(tokens=pelican.minted(there), authority=there.servers.authority, patience=pelican.PATIENCE)
    return PelicanOrigin(
        Address(there.director.host, pelican.prefix(place), direct=False), replace(ways, tokens=Deadly(ways.tokens, at))
    )


def upload(there: PelicanOrigin, source: Path) -> None:
    there.put(SIF, source, sha256=SHA256, size=SIZE)
    there.put_bytes(SHARD, b"{}")
    there.replace(INDEX, b"2")


def stored(place: Path) -> dict[str, bytes]:
    """What lies on the origin's disk."""
    top = pelican.running().servers.data / pelican.prefix(place).lstrip("/")
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
    assert [line.split(" (")[0] for line in origin(place).recover()] == [f"swept a killed upload: {name}" for name in left]
    assert incoming(place) == []
    upload(origin(place), source)
    assert_sound(place)
    assert stored(place)[INDEX] == b"2"
    assert incoming(place) == []
    return len(left)


def test_an_upload_that_is_killed_before_any_of_its_requests_costs_only_a_rerun(tmp_path: Path, source: Path) -> None:
    swept = 0
    for point in itertools.count():
        place = tmp_path / str(point)
        origin(place).replace(INDEX, b"1")
        there = origin(place, point + 1)  # the first token is for the director
        status = children.end(children.start(lambda: upload(there, source)))  # noqa: B023 - it ends here
        if status == 0:
            break
        assert status == -signal.SIGKILL
        swept += assert_rerun_completes(place, source)
    assert swept > 5


def test_an_upload_that_is_killed_at_a_random_moment_costs_only_a_rerun(tmp_path: Path, source: Path) -> None:
    place = tmp_path / "whole"
    origin(place).replace(INDEX, b"1")
    started = time.monotonic()
    upload(origin(place), source)
    whole = time.monotonic() - started
    chance = random.Random()
    for point in range(MOMENTS):
        place = tmp_path / str(point)
        origin(place).replace(INDEX, b"1")
        there = origin(place)
        child = children.start(lambda: upload(there, source))  # noqa: B023 - it ends here
        time.sleep(chance.uniform(0, whole))  # the moment is what is tried
        os.kill(child, signal.SIGKILL)
        assert children.end(child) in (0, -signal.SIGKILL)
        assert_rerun_completes(place, source)
