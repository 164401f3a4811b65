from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.ep.own_reads import own_reads
from tests.support.machine.no_authorities import no_authorities
from tests.support.publisher.host import Host
from tests.support.registries.registry import RegistryServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


__all__ = ["no_authorities", "own_reads"]


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A real docker-registry for all attacks: each pushes into repositories of its own."""
    with RegistryServer(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def host(shared_path: Path, registry: RegistryServer) -> Host:
    """A publisher host with a key, and nothing published."""
    return Host(shared_path, registry)
