"""A SIF through a director from a real XRootD cache and origin, also when the cache has something else."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from publisher.resolver.cache.cache import Cache
from publisher.resolver.errors import AbsentError, AccessDeniedError
from publisher.resolver.transfer.fetch import fetch
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.sources import NetworkOptions
from tests.support.ep.chunked import BLOCK as CHUNK
from tests.support.ep.chunked import Near, content_of, with_table
from tests.support.ep.execution_point import REPOSITORY, ExecutionPoint, lay_down, record, sif_content, sif_of, version
from tests.support.osdf.federation import Director
from tests.support.osdf.tokens import Issuer
from tests.support.osdf.xrootd import NAMESPACE, Servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.contract.records import Sif

pytestmark = pytest.mark.system

SIZE = 5_000_000
BLOCK = 128 * 1024  # of the cache


class Pool:
    """A federation of real servers, and a host that fetches."""

    def __init__(self, servers: Servers, director: Director, root: Path) -> None:
        self.servers = servers
        self.director = director
        self.place = f"pelican://{director.host}{NAMESPACE}"
        self.network = NetworkOptions(str(root), ca=str(servers.authority), silence=5)
        self.part = root / "x.part"
        self.content = sif_content(root.name, SIZE)
        self.sif = sif_of(self.content)

    def put(self, content: bytes) -> None:
        put(self.servers, {self.sif.path: content})

    def read_through_the_cache(self, start: int = 0, end: int | None = None, *, name: str = "") -> bytes:
        url = f"{self.servers.cache}{NAMESPACE}/{name or self.sif.path}"
        part = [] if end is None else ["-r", f"{start}-{end - 1}"]
        command = ["curl", "-sS", "--cacert", str(self.servers.authority), *part, url]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def fetch(self, sif: Sif | None = None) -> str:
        came_from = fetch([open_source(self.place, self.network)], sif or self.sif, str(self.part))
        assert self.part.read_bytes() == self.content
        return came_from


class Versions:
    """A host that has one version of an image, and the next one in the federation, of which two chunks far apart are new."""

    def __init__(self, pool: Pool, root: Path) -> None:
        self.pool = pool
        self.pool.network = Near(str(root), ca=str(pool.servers.authority), silence=60)
        self._cache = Cache(str(root / "cache"))
        names = [f"{root.name} {number}" for number in range(120)]
        old, old_objects = with_table(content_of(*names))
        self.new, objects = with_table(content_of("new", *names[1:-1], "newer"))
        self.content = objects[self.new.path]
        self.table_size = sum(map(len, objects.values())) - len(self.content)
        put(pool.servers, old_objects | objects)
        self._ensure(old)

    def fetch(self) -> str:
        path, came_from = self._ensure(self.new)
        assert Path(path).read_bytes() == self.content
        self.received, self.copied = self._cache.received, self._cache.copied
        return came_from

    def _ensure(self, sif: Sif) -> tuple[str, str]:
        return self._cache.ensure(sif, [open_source(self.pool.place, self.pool.network)])


def put(servers: Servers, files: dict[str, bytes]) -> None:
    """Files of the origin, which its account can read."""
    top = servers.data / NAMESPACE.lstrip("/")
    lay_down(files, top)
    for path in (top, *top.rglob("*")):
        path.chmod(0o755)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        running.start("cache")
        yield running


@pytest.fixture
def pool(servers: Servers, tmp_path: Path) -> Iterator[Pool]:
    with Director(servers.tls, NAMESPACE, servers.origin, [servers.cache]) as director:
        yield Pool(servers, director, tmp_path)


@pytest.fixture
def versions(pool: Pool, tmp_path: Path) -> Versions:
    return Versions(pool, tmp_path)


def test_a_sif_comes_from_the_cache_and_goes_on_where_it_broke_off(pool: Pool) -> None:
    pool.put(pool.content)
    pool.part.write_bytes(pool.content[:1_234_567])
    assert pool.fetch() == f"{pool.servers.cache}{NAMESPACE}"


def test_an_object_that_was_overwritten_comes_from_the_origin_though_the_cache_has_the_old_one(pool: Pool) -> None:
    old = sif_content("old", SIZE)
    pool.put(old)
    assert pool.read_through_the_cache() == old
    pool.put(pool.content)
    assert pool.read_through_the_cache() == old, "a cache does not look again"
    assert pool.fetch() == f"{pool.servers.origin}{NAMESPACE}"


def test_half_old_and_half_new_comes_from_the_origin(pool: Pool) -> None:
    old = sif_content("old", SIZE)
    pool.put(old)
    half = SIZE // 2 // BLOCK * BLOCK
    assert pool.read_through_the_cache(0, half) == old[:half]
    pool.put(pool.content)
    mixed = pool.read_through_the_cache()
    assert mixed[:half] == old[:half]
    assert mixed[half:] == pool.content[half:]
    assert pool.fetch() == f"{pool.servers.origin}{NAMESPACE}"


def test_an_upload_that_was_read_before_it_was_whole_comes_from_the_origin(pool: Pool) -> None:
    pool.put(pool.content[:1_000_000])
    assert len(pool.read_through_the_cache()) == 1_000_000
    pool.put(pool.content)
    assert len(pool.read_through_the_cache()) == 1_000_000
    assert pool.fetch() == f"{pool.servers.origin}{NAMESPACE}"
    assert "1000000 bytes, but the manifest says 5000000" in "".join(
        path.read_text() for path in (pool.part.parent / "failures").iterdir()
    )


def test_a_difference_comes_in_ranges_from_a_cache_that_keeps_blocks(versions: Versions) -> None:
    assert versions.fetch() == f"{versions.pool.servers.cache}{NAMESPACE}"
    assert versions.received == 2 * CHUNK + versions.table_size
    assert versions.copied == versions.new.size - 2 * CHUNK


def test_chunks_that_the_cache_has_wrong_come_from_the_origin(versions: Versions) -> None:
    """The cache read the object when half of it was another one's."""
    wrong = bytes(len(versions.content))
    put(versions.pool.servers, {versions.new.path: wrong})
    assert versions.pool.read_through_the_cache(name=versions.new.path) == wrong
    put(versions.pool.servers, {versions.new.path: versions.content})
    assert versions.fetch() == f"{versions.pool.servers.origin}{NAMESPACE}"
    assert versions.copied == versions.new.size - 2 * CHUNK
    assert versions.received < versions.new.size / 4


def test_a_cache_that_is_down_is_passed_by(pool: Pool, servers: Servers) -> None:
    pool.put(pool.content)
    servers.stop("cache")
    try:
        assert pool.fetch() == f"{servers.origin}{NAMESPACE}"
    finally:
        servers.start("cache")


def test_what_is_nowhere_is_absent(pool: Pool) -> None:
    with pytest.raises(AbsentError, match="status 404"):
        pool.fetch()
    pool.place = f"pelican://{pool.director.host}/elsewhere"
    with pytest.raises(AbsentError, match=f"{pool.place}: status 404"):
        pool.fetch()


def test_a_private_namespace_is_read_with_a_token_and_only_with_a_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Servers(public=False) as servers, Director(servers.tls, NAMESPACE, servers.origin, public=False) as director:
        pool = Pool(servers, director, tmp_path)
        pool.network.token_issuers = ((f"{director.host}{NAMESPACE}", servers.issuer.url),)
        pool.put(pool.content)
        for token in ("", Issuer().token("storage.read:/")):
            monkeypatch.setenv("BEARER_TOKEN", token)
            with pytest.raises(AccessDeniedError, match="status 403"):
                pool.fetch()
        monkeypatch.setenv("BEARER_TOKEN", servers.issuer.token("storage.read:/"))
        assert pool.fetch() == f"{servers.origin}{NAMESPACE}"


def test_a_host_without_cvmfs_has_manifest_and_sif_from_the_federation(pool: Pool, tmp_path: Path) -> None:
    ep = ExecutionPoint(tmp_path)
    ep.publish(record("a/b:1", amd64=[version("a/b:1", sif=ep.store(pool.content))]))
    files = (path for path in ep.origin.rglob("*") if path.is_file())
    put(pool.servers, {str(path.relative_to(ep.origin)): path.read_bytes() for path in files})
    places: dict[str, Any] = {
        "repository": None,
        "repository_name": REPOSITORY,
        "origin": pool.place,
        "ca": str(pool.servers.authority),
    }
    answer = ep.resolve("a/b:1", **places)
    assert Path(answer.path).read_bytes() == pool.content
    assert answer.manifest.source == f"{pool.place}/manifest"
    assert answer.sif_source == f"{pool.servers.cache}{NAMESPACE}"
    asked = pool.director.lines()
    assert ep.resolve("a/b:1", **places).path == answer.path
    assert pool.director.lines() == asked
    direct = [line for line in asked if line.endswith("?directread")]
    assert direct == [f"GET {NAMESPACE}/manifest/index.json?directread"]
    assert len(asked) == 3, "and discovery, and the caches once for shards and SIFs"
