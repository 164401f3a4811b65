"""The implementations that the contracts are checked on: one line each, a place to work in -> what works there.

What a factory returns at the second call is to the first as another process's: the same place, nothing shared in memory.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.origins.replicated import ReplicatedOrigin
from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.cvmfs.real import real_repository
from tests.support.cvmfs.stand_in import fake_repository
from tests.support.machine.no_authorities import no_authorities
from tests.support.osdf import origin as pelican

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publisher.targets.origins.base import Origin
    from publisher.targets.repositories.base import Repository

__all__ = ["no_authorities"]

REPOSITORIES: dict[str, Callable[[Path], Repository]] = {
    "directory": lambda place: DirectoryRepository(place / "repository"),
    "cvmfs": fake_repository,
    "real cvmfs": real_repository,
}
ORIGINS: dict[str, Callable[[Path], Origin]] = {
    "directory": lambda place: DirectoryOrigin(place / "origin"),
    "replicated": lambda place: ReplicatedOrigin(DirectoryOrigin(place / "origin"), {"2": DirectoryOrigin(place / "second")}),
    "pelican, direct": pelican.direct,
    "pelican, directed": pelican.directed,
}


@pytest.fixture(params=REPOSITORIES)
def repositories(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Repository]:
    return partial(REPOSITORIES[request.param], tmp_path)


@pytest.fixture(params=ORIGINS)
def origins(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Origin]:
    return partial(ORIGINS[request.param], tmp_path)


@pytest.fixture
def repository(repositories: Callable[[], Repository]) -> Repository:
    return repositories()


@pytest.fixture
def origin(origins: Callable[[], Origin]) -> Origin:
    return origins()
