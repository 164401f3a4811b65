"""A whole publisher with a real XRootD origin, and the token that docs/osdf.md asks for; read back by pelicanfs and a cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.images.layers import directory, file, tar
from tests.support.images.runnable import runnable
from tests.support.osdf import pelicanfs_reader
from tests.support.osdf.federation import Director
from tests.support.osdf.xrootd import NAMESPACE, Servers
from tests.support.publisher.host import Host
from tests.support.registries.registry import RegistryServer, push_image

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system
SCOPES = (
    "storage.read:/ storage.modify:/.incoming storage.create:/sif storage.create:/manifest/shards"
    " storage.create:/manifest/log storage.modify:/manifest/index.json"
)


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers() as running:
        running.start("cache")
        yield running


@pytest.fixture
def director(servers: Servers) -> Iterator[Director]:
    with Director(servers.tls, NAMESPACE, servers.origin, [servers.cache], issuer=servers.issuer.url) as running:
        yield running


class Publisher(Host):
    """A publisher host whose origin is one of a federation."""

    def __init__(self, where: Path, registry: RegistryServer, servers: Servers, director: Director) -> None:
        self.token = where / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(servers.issuer.token(SCOPES))
        self.place = f"pelican://{director.host}{NAMESPACE}"
        self.authority = servers.authority
        super().__init__(where, registry)

    def flags(self) -> list[str]:
        remote = [
            f"--origin={self.place}",
            f"--token-file={self.token}",
            f"--origin-authority={self.authority}",
            "--allowed-networks=127.0.0.0/8",
        ]
        return [flag for flag in super().flags() if not flag.startswith("--origin=")] + remote


@pytest.fixture
def host(shared_path: Path, registry: RegistryServer, servers: Servers, director: Director) -> Publisher:
    return Publisher(shared_path, registry, servers, director)


def push(registry: RegistryServer, text: str) -> None:
    top = tar([directory("etc"), file("etc/motd", text.encode())])
    push_image(registry.address, "pelican/one", "1", [tar(runnable()), top])


def test_what_a_sync_stores_is_what_an_independent_client_reads(
    host: Publisher, registry: RegistryServer, servers: Servers, director: Director
) -> None:
    host.images("pelican/one:1")
    for text in ("first", "second"):
        push(registry, text)
        assert host.sync().results == {"pelican/one:1": "published"}
        stored = {name: hashlib.sha256(content).hexdigest() for name, content in servers.files().items()}
        assert [name for name in stored if name.startswith(".incoming/")] == []
        immutable = {f"{NAMESPACE}/{name}": sha256 for name, sha256 in stored.items() if name != "manifest/index.json"}
        assert pelicanfs_reader.read(director.host, immutable, servers.authority) == immutable
        assert servers.files()["manifest/index.json"] == (host.repository / ".publisher/index.json").read_bytes()
        version = host.record("pelican/one:1").current("amd64")
        assert version is not None
        assert version.sif is not None
        assert stored[version.sif.path] == version.sif.sha256
    assert host.run("verify").returncode == 0
    held = host.run("origin", check=True).stdout
    assert held.startswith("2 SIF(s) (")
    assert "missing" not in held
    assert host.sync().results == {"pelican/one:1": "unchanged"}


def test_a_damaged_object_is_found_and_never_overwritten(host: Publisher, registry: RegistryServer, servers: Servers) -> None:
    push(registry, "damaged")
    host.images("pelican/one:1")
    host.sync()
    (sif,) = servers.data.rglob("*.sif")
    content = sif.read_bytes()
    sif.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found = host.run("verify")
    assert found.returncode == 1
    assert sif.name in found.stdout
    sif.unlink()
    held = host.run("origin", "--json")
    assert held.returncode == 1
    assert [Path(name).name for name in json.loads(held.stdout)["missing"]] == [sif.name]


def test_a_token_that_is_over_fails_the_image_and_a_new_one_is_taken_at_the_next_run(
    host: Publisher, registry: RegistryServer, servers: Servers
) -> None:
    push(registry, "refused")
    host.images("pelican/one:1")
    host.token.write_text(over := servers.issuer.token(SCOPES, life=-60))
    report = host.sync(check=False)
    assert report.status == 4
    assert "docs/osdf.md lists the scopes" in report.stderr + str(report.said)
    assert over not in report.stderr + str(report.said)
    assert servers.files() == {}
    host.token.write_text(servers.issuer.token(SCOPES))
    assert host.sync().results == {"pelican/one:1": "published"}
