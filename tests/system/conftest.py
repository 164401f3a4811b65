from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cvmfs.host import CvmfsHost
from tests.support.cvmfs.real import RealCvmfs, real_name
from tests.support.cvmfs.stand_in import FakeCvmfs
from tests.support.ep.pool_site import Site
from tests.support.ep.release import release
from tests.support.registries.registry import RegistryServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A real docker-registry for all tests: each pushes into repositories of its own. What it was asked starts anew."""
    with RegistryServer(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``image-resolver.pyz``."""
    return release(tmp_path_factory.mktemp("dist") / "image-resolver.pyz")


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


@pytest.fixture
def cvmfs(tmp_path: Path) -> Iterator[FakeCvmfs | RealCvmfs]:
    """A CVMFS repository: the real server's that the environment names, otherwise the stand-in's."""
    made = FakeCvmfs(tmp_path) if real_name() is None else RealCvmfs(tmp_path)
    yield made
    made.close()


@pytest.fixture
def there(shared_path: Path, registry: RegistryServer, cvmfs: FakeCvmfs | RealCvmfs) -> CvmfsHost:
    """A publisher host with a CVMFS repository, and nothing published."""
    return CvmfsHost(shared_path, registry, cvmfs)
