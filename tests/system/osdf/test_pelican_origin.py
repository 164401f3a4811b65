"""What is particular to an origin of a federation, on a real XRootD; what every origin does is in tests/contract."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from publisher.errors import OriginError
from publisher.net.retry import RetryPolicy
from publisher.targets.origins.pelican import PelicanOrigin, UploadOptions
from publisher.targets.pelican import owner
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.pelican.status import OriginDeniedError
from tests.support.loopback import LOOPBACK
from tests.support.machine import child_process
from tests.support.osdf import origin as pelican
from tests.support.osdf.xrootd import NAMESPACE, Servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from publisher.targets.pelican.tokens import TokenScope, TokenSource

pytestmark = pytest.mark.system
SIF, INDEX = "sif/ab/x.sif", "manifest/index.json"
EVERYTHING = "storage.read:/ storage.modify:/"
UPLOADER = "storage.read:/ storage.modify:/.incoming storage.create:/sif storage.modify:/manifest/index.json"
DAY = 86400


class Listed:
    """Tokens in this order, the last of them again and again; and what they were asked for."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = list(tokens)
        self.asked: list[Sequence[TokenScope]] = []

    def bearer(self, scopes: Sequence[TokenScope], _base: str) -> str:
        self.asked.append(scopes)
        return self._tokens.pop(0) if len(self._tokens) > 1 else self._tokens[0]


@pytest.fixture(scope="module")
def shared() -> Iterator[Servers]:
    with Servers() as running:
        yield running


@pytest.fixture
def servers(shared: Servers) -> Servers:
    shared.empty()
    return shared


def origin(
    servers: Servers, tokens: TokenSource, removing: TokenSource | None = None, *, days: float = 0, checksums: bool = False
) -> PelicanOrigin:
    """``days``: by how much our clock is later."""
    address = OriginAddress(servers.origin.removeprefix("https://"), NAMESPACE, direct=True)
    retries = RetryPolicy(attempts=2, first_delay=0.01)
    options = UploadOptions(
        networks=LOOPBACK, tokens=tokens, removal_tokens=removing, ca_file=servers.authority, retries=retries, checksums=checksums
    )
    return PelicanOrigin(address, options, lambda: time.time() + days * DAY)


def token(servers: Servers, scope: str, **more: float) -> str:
    """For the whole server: it is used without a federation, but its issuer grants scopes for a namespace."""
    return servers.issuer.token(scope, **more)


def put(there: PelicanOrigin, source: Path, content: bytes) -> bool:
    source.write_bytes(content)
    return there.put(SIF, source, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def test_the_token_that_is_asked_for_suffices_and_cannot_overwrite_or_delete(servers: Servers, tmp_path: Path) -> None:
    there = origin(servers, Listed(token(servers, UPLOADER)))
    assert put(there, tmp_path / "sif", b"first")
    for content in (b"1", b"2"):
        there.replace(INDEX, content)
    with pytest.raises(OriginError, match="other bytes"):
        put(there, tmp_path / "sif", b"other")
    with pytest.raises(OriginDeniedError, match=r"docs/osdf\.md"):
        there.remove(SIF)
    assert servers.files() == {SIF: b"first", INDEX: b"2"}


def test_what_removes_has_a_token_of_its_own(servers: Servers, tmp_path: Path) -> None:
    removing = Listed(token(servers, "storage.modify:/sif"))
    there = origin(servers, Listed(token(servers, UPLOADER)), removing)
    put(there, tmp_path / "sif", b"first")
    assert removing.asked == []
    there.remove(SIF)
    assert servers.files() == {}
    assert [scope.path for scopes in removing.asked for scope in scopes] == [f"{NAMESPACE}/{SIF}"]


def test_each_request_asks_for_the_scopes_that_it_needs(servers: Servers, tmp_path: Path) -> None:
    tokens = Listed(token(servers, EVERYTHING))
    there = origin(servers, tokens)
    put(there, tmp_path / "sif", b"first")
    there.replace(INDEX, b"1")
    scopes = {tuple((one.capability, _area(one.path)) for one in asked) for asked in tokens.asked}
    assert scopes == {
        (("storage.read", SIF),),
        (("storage.read", INDEX),),
        (("storage.create", "upload"),),
        (("storage.read", "upload"),),
        (("storage.modify", "upload"), ("storage.create", SIF)),
        (("storage.modify", "upload"), ("storage.modify", INDEX)),
    }


def _area(path: str) -> str:
    name = path.removeprefix(f"{NAMESPACE}/")
    return "upload" if name.startswith(".incoming/") else name


def test_a_refused_token_is_refreshed_once(servers: Servers, tmp_path: Path) -> None:
    over, good = token(servers, EVERYTHING, life=-60), token(servers, EVERYTHING)
    tokens = Listed(good, over, good)
    assert put(origin(servers, tokens), tmp_path / "sif", b"first")
    assert len(tokens.asked) == 5  # PROPFIND, PUT twice, GET, MOVE
    with pytest.raises(OriginDeniedError) as refused:
        origin(servers, Listed(good, over)).put_bytes("sif/ab/y.sif", b"second")
    assert over not in str(refused.value)


@pytest.mark.parametrize("size", [10, 32 << 20])
def test_an_upload_that_is_not_allowed_is_refused_as_such_whatever_its_size(servers: Servers, tmp_path: Path, size: int) -> None:
    """XRootD closes the connection while a large one is sent."""
    with pytest.raises(OriginDeniedError, match="status 403"):
        put(origin(servers, Listed(token(servers, "storage.read:/"))), tmp_path / "sif", bytes(size))
    assert servers.files() == {}


def test_an_object_may_not_have_a_name_that_servers_read_otherwise(servers: Servers) -> None:
    there = origin(servers, Listed(token(servers, EVERYTHING)))
    for name in ("a?b", "a#b", "a%41", "a b", "ä", "a&b", ".incoming/x"):
        with pytest.raises(OriginError, match="unsafe name"):
            there.put_bytes(name, b"")
    assert servers.files() == {}


def test_files_of_strangers_are_no_objects(servers: Servers) -> None:
    there = origin(servers, Listed(token(servers, EVERYTHING)))
    there.put_bytes(SIF, b"")
    (servers.data / NAMESPACE[1:] / "sif/a stranger's").write_bytes(b"")
    assert list(there.names()) == [SIF]


def test_uploads_of_the_living_and_of_other_hosts_stay_until_they_are_old(servers: Servers) -> None:
    there = origin(servers, Listed(token(servers, EVERYTHING)))
    me = owner.this_process()
    child = child_process.start(lambda: None)
    dead = me._replace(pid=child, start=0)
    child_process.end(child)
    before = me._replace(boot="0" * 8)
    names = [
        me.new_upload_name(),
        dead.new_upload_name(),
        before.new_upload_name(),
        before.new_upload_name(),
        me._replace(host="0" * 16).new_upload_name(),
        "a-strangers",
    ]
    area = servers.data / NAMESPACE[1:] / ".incoming"
    there.put_bytes(SIF, b"")
    for name in names:
        (area / name).write_bytes(b"12")
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    os.utime(area / names[2], (boot - 3600, boot - 3600))
    assert sorted(there.recover()) == sorted(f"swept a killed upload: .incoming/{name} (2 B)" for name in names[1:3])
    assert sorted(path.name for path in area.iterdir()) == sorted([names[0], *names[3:]])
    assert there.recover() == []
    assert len(origin(servers, Listed(token(servers, EVERYTHING)), days=1.1).recover()) == 4
    assert list(area.iterdir()) == []


@pytest.mark.parametrize("digests", ["adler32", "md5"])
def test_the_origins_own_checksum_is_compared_where_it_is_the_one_that_was_asked_for(tmp_path: Path, digests: str) -> None:
    with Servers(digests=digests) as servers:
        assert put(origin(servers, Listed(token(servers, EVERYTHING)), checksums=True), tmp_path / "sif", b"first")
        assert servers.files() == {SIF: b"first"}


def test_an_origin_that_dies_during_an_upload_is_an_error_and_a_rerun_completes_it(tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 64
    with Servers() as servers:
        area = servers.data / NAMESPACE[1:] / ".incoming"

        def die() -> None:
            while not any(path.stat().st_size for path in (area.iterdir() if area.is_dir() else ())):
                time.sleep(0.001)
            servers.stop("origin")

        thread = threading.Thread(target=die)
        thread.start()
        with pytest.raises(OriginError, match="after 2 attempts"):
            put(origin(servers, Listed(token(servers, EVERYTHING))), tmp_path / "sif", content)
        thread.join()
        assert SIF not in servers.files()
        servers.start("origin")
        there = origin(servers, Listed(token(servers, EVERYTHING)), days=1.1)
        assert put(there, tmp_path / "sif", content)
        there.recover()
        assert servers.files() == {SIF: content}


def test_an_origin_that_everybody_may_read_is_looked_at_without_a_token(tmp_path: Path) -> None:
    there = pelican.running()
    pelican.directed(tmp_path).put_bytes("manifest/shards/x.json", b"{}")
    options = UploadOptions(networks=LOOPBACK, ca_file=there.servers.authority)
    assert list(PelicanOrigin(OriginAddress(there.director, pelican.prefix(tmp_path), direct=False), options).names()) == [
        "manifest/shards/x.json"
    ]
