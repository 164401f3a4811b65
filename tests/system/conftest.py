from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cvmfs import FakeCvmfs
from tests.support.registry import RegistryServer
from tests.support.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A real docker-registry for all tests: each pushes into repositories of its own. What it was asked starts anew."""
    with RegistryServer(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def site(registry: RegistryServer) -> Iterator[Site]:
    """A real pool, set up by what the resolver writes, for all tests: each leaves it as it found it."""
    with Site(registry) as made:
        yield made


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeCvmfs]:
    """A CVMFS repository of the stand-in."""
    made = FakeCvmfs(tmp_path)
    yield made
    made.close()
