"""The ways that a federation's director names, and what is kept of its answers; over TLS, with an authority of our own."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.errors import AbsentError, AccessDeniedError, FetchError
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.transfer.director import Director as Asking
from publisher.resolver.transfer.director_response import DirectorError
from publisher.resolver.transfer.fetch import fetch
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.sources import NetworkOptions
from tests.support.ep.execution_point import sif_content, sif_of
from tests.support.osdf.faulty_cache import FaultyServer
from tests.support.osdf.federation import CONFIGURATION, ISSUER, Director, Said, token_of
from tests.support.registries.scripted_http import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = sif_content("a", 2_000_000)
SIF = sif_of(CONTENT)
PREFIX = "/images/ap 20"
QUOTED = "/images/ap%2020"
PATH = f"{QUOTED}/{SIF.path}"
TOKEN = token_of()
DIRECTORS = ["GET " + CONFIGURATION, f"GET {PATH}"]
DIRECT = f"GET {PATH}?directread"


class CachesOnly(Director):
    """Names the origin only to who asks for it."""

    def _directed(self, method: str, target: str) -> Said:
        said = super()._directed(method, target)
        links = [link for link in said.headers.get("Link", "").split(", ") if "directread" in target or self.origin not in link]
        return Said(said.status, {**said.headers, "Link": ", ".join(links)}, said.body)


class Federation:
    """A director, two caches and an origin, and a directory to fetch into."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.authority, tls = certificate(root, "localhost")
        objects = {PATH: CONTENT}
        self.near, self.far, self.origin = (stack.enter_context(FaultyServer(objects, tls)) for _ in range(3))
        self.tls = tls
        self.director = stack.enter_context(CachesOnly(tls, "/images", self.origin.url, [self.near.url, self.far.url]))
        self.root = root / "cache"
        self.root.mkdir()
        self.network = NetworkOptions(str(self.root), ca=str(self.authority), silence=1)
        self.part = root / "x.part"

    def fetch(self, place: str | None = None, *, until: float | None = None) -> str:
        self.part.unlink(missing_ok=True)
        text = place or f"pelican://{self.director.host}{PREFIX}"
        came_from = fetch([open_source(text, self.network)], SIF, str(self.part), until=until)
        assert self.part.read_bytes() == CONTENT
        return came_from

    def asking(self, pauses: list[float] | None = None, now: float | None = None) -> Asking:
        sleep = time.sleep if pauses is None else pauses.append
        return Asking(self.director.host, self.network, sleep, lambda: time.time() if now is None else now)

    def servers(self, asking: Asking, *, direct: bool = False, refresh: bool = False) -> list[str]:
        return asking.find(f"{PREFIX}/{SIF.path}", direct=direct, refresh=refresh).servers


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with ExitStack() as stack:
        yield Federation(tmp_path, stack)


def test_the_nearest_cache_is_asked_and_the_director_once_for_many_files(federation: Federation) -> None:
    for _ in range(3):
        assert federation.fetch() == f"{federation.near.url}{QUOTED}"
    assert federation.director.lines() == DIRECTORS
    assert len(federation.near.asked) == 3
    assert federation.far.asked == federation.origin.asked == []


def test_osdf_means_the_federation_that_is_configured(federation: Federation) -> None:
    with pytest.raises(FetchError, match=r"no federation is set for osdf:// URLs"):
        federation.fetch(f"osdf://{PREFIX}")
    federation.network.federation = federation.director.host
    for place in (f"osdf://{PREFIX}", f"osdf:/{PREFIX}/"):
        assert federation.fetch(place) == f"{federation.near.url}{QUOTED}"


def test_servers_are_tried_by_the_directors_priorities(federation: Federation) -> None:
    link = f'<{federation.far.url}{PATH}>; depth=1; rel="duplicate"; pri=2, <{federation.near.url}{PATH}?a=b>; pri="1"; depth=9'
    federation.director.instead = [Said(200, body=f'{{"director_endpoint": "{federation.director.url}/"}}')]
    asking = federation.asking()
    federation.servers(asking)
    federation.director.instead = [Said(307, {"Link": link, "Location": "https://elsewhere.invalid/x?authz=secret"})]
    assert federation.servers(asking, refresh=True) == [federation.near.url, federation.far.url]


def test_a_director_that_only_redirects_is_understood(federation: Federation) -> None:
    federation.servers(federation.asking())
    federation.director.instead = [Said(307, {"Location": f"{federation.far.url}{PATH}?authz=secret"})]
    assert federation.servers(federation.asking(), refresh=True) == [federation.far.url]


def test_the_origin_serves_a_file_that_every_cache_has_wrong(federation: Federation) -> None:
    for cache in (federation.near, federation.far):
        cache.objects = {PATH: bytes(len(CONTENT))}
    assert federation.fetch() == f"{federation.origin.url}{QUOTED}"
    assert federation.director.lines() == [*DIRECTORS, DIRECT]


def test_a_refusal_is_final_only_if_every_server_refuses(federation: Federation) -> None:
    federation.near.always = federation.far.always = "403"
    assert federation.fetch() == f"{federation.origin.url}{QUOTED}"
    federation.origin.always = "403"
    with pytest.raises(AccessDeniedError, match="status 403 Forbidden"):
        federation.fetch()


def test_a_file_that_no_server_has_is_absent(federation: Federation) -> None:
    for server in (federation.near, federation.far, federation.origin):
        server.objects = {}
    with pytest.raises(AbsentError, match="status 404"):
        federation.fetch()


def test_a_path_unknown_to_the_director_is_absent_and_asked_for_once(federation: Federation) -> None:
    with pytest.raises(AbsentError, match="status 404"):
        federation.asking().find("/elsewhere/x", direct=False)
    assert federation.director.lines() == ["GET " + CONFIGURATION, "GET /elsewhere/x"]


@pytest.mark.parametrize(
    "said",
    [
        Said(404, {"Server": "nginx", "Content-Type": "text/html"}),
        Said(429),
        Said(429, {"Retry-After": "4"}),
        Said(500),
        Said(503),
    ],
)
def test_transient_failures_are_retried(federation: Federation, said: Said) -> None:
    federation.servers(federation.asking())
    federation.director.instead = [said, said]
    pauses: list[float] = []
    assert federation.servers(federation.asking(pauses, now=time.time() + 1000))
    assert len(federation.director.asked) == 5
    first, second = pauses
    if "Retry-After" in said.headers:
        assert (first, second) == (4, 4)
    else:
        assert 0.25 <= first < 0.75
        assert 0.5 <= second < 1.5


def test_retries_end(federation: Federation) -> None:
    federation.director.instead = [Said(503)] * 10
    pauses: list[float] = []
    with pytest.raises(FetchError, match=f"{federation.director.host}: status 503 Service Unavailable"):
        federation.servers(federation.asking(pauses))
    assert len(pauses) == 3
    federation.director.instead = [Said(503)] * 10
    with pytest.raises(FetchError):
        federation.asking(pauses).find(PATH, direct=False, until=time.monotonic() + 0.01)
    assert len(pauses) == 3, "nobody needs it any more"


def test_answers_are_cached_and_used_after_expiry_if_the_director_fails(federation: Federation) -> None:
    now = time.time()
    found = federation.servers(federation.asking(now=now))
    assert federation.servers(federation.asking(now=now + 600)) == found
    assert len(federation.director.asked) == 2
    federation.director.caches.pop(0)
    pauses: list[float] = []
    federation.director.instead = [Said(503)] * 4
    for seconds in (1000, 1009):
        assert federation.servers(federation.asking(pauses, now=now + seconds)) == found
    assert len(federation.director.asked) == 6, "a failure is not tried again at once"
    assert federation.servers(federation.asking(now=now + 1031)) == found[1:]


def test_a_refresh_asks_only_once(federation: Federation) -> None:
    found = federation.servers(federation.asking())
    federation.director.instead = [Said(503)] * 4
    pauses: list[float] = []
    assert federation.servers(federation.asking(pauses), refresh=True) == found
    assert pauses == []


def test_a_clock_that_was_set_back_and_a_broken_cache_do_no_harm(federation: Federation) -> None:
    now = time.time()
    federation.servers(federation.asking(now=now))
    federation.servers(federation.asking(now=now - 86400))
    assert len(federation.director.asked) == 4
    (memory,) = (federation.root / "federation").iterdir()
    for content in ("", "[]", '{"namespaces": [{"namespace": 7}, 3]}', '{"director": 4, "namespaces": {}}'):
        memory.write_text(content)
        assert federation.servers(federation.asking())


def test_an_answer_is_valid_for_its_namespace_only(federation: Federation) -> None:
    federation.servers(federation.asking())
    federation.asking().find("/images/other/file", direct=False)
    assert len(federation.director.asked) == 2
    with pytest.raises(AbsentError):
        federation.asking().find("/imagesandmore/file", direct=False)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Said(200, body="<html>"), "the configuration of the federation names no director"),
        (Said(404, {"Content-Type": "application/json"}), "not a Pelican federation: status 404 Not Found"),
        (Said(200, body="[]"), "the configuration of the federation names no director"),
        (
            Said(200, body='{"director_endpoint": "http://plain.invalid"}'),
            "the configuration of the federation names no director",
        ),
    ],
)
def test_a_host_without_a_federation_is_reported(federation: Federation, said: Said, message: str) -> None:
    federation.director.instead = [said] * 4
    with pytest.raises(FetchError, match=message) as failure:
        federation.servers(federation.asking([]))
    assert type(failure.value) is FetchError, "of the file nothing is known"


@pytest.mark.parametrize(
    "headers", [{}, {"Link": "<ftp://x/y>"}, {"Link": "<https://x.invalid/another/file>"}, {"Location": "nonsense"}]
)
def test_an_answer_without_a_server_is_an_error(federation: Federation, headers: dict[str, str]) -> None:
    federation.network.root = None
    federation.director.instead = [Said(200, body=f'{{"director_endpoint": "{federation.director.url}"}}'), Said(307, headers)]
    with pytest.raises(DirectorError, match=f"{federation.director.host}: the director names no server"):
        federation.servers(federation.asking())


@pytest.mark.parametrize("said", [Said(405, {"Content-Type": "application/json"}), Said(400, {"Server": "nginx"}), Said(307)])
def test_an_unusable_answer_for_one_path_is_no_failure_of_the_director(federation: Federation, said: Said) -> None:
    """As one does that is asked for the origin of a namespace without direct reads."""
    federation.director.instead = [Said(200, body=f'{{"director_endpoint": "{federation.director.url}"}}'), said]
    pauses: list[float] = []
    with pytest.raises(DirectorError):
        federation.servers(federation.asking(pauses), direct=True)
    assert pauses == []
    assert federation.servers(federation.asking())
    assert federation.director.lines() == ["GET " + CONFIGURATION, DIRECT, f"GET {PATH}"], "discovery is asked once"


def test_where_the_director_names_no_cache_the_origin_serves(federation: Federation) -> None:
    federation.servers(federation.asking(), direct=True)
    federation.director.instead = [Said(400)]
    assert federation.fetch() == f"{federation.origin.url}{QUOTED}"


def test_a_job_that_ran_out_of_time_records_no_failure_of_the_director(federation: Federation) -> None:
    federation.director.instead = [Said(503)]
    with pytest.raises(FetchError):
        federation.asking().find(PATH, direct=False, until=time.monotonic() - 1)
    federation.director.instead.clear()
    assert federation.servers(federation.asking())


class Private(Federation):
    """Its director says that a token is needed."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        super().__init__(root, stack)
        self.director._public = False
        self.network.token_issuers = ((f"{self.director.host}/images", ISSUER),)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Private]:
    with ExitStack() as stack:
        yield Private(tmp_path, stack)


@pytest.mark.parametrize("where", ["BEARER_TOKEN", "BEARER_TOKEN_FILE", "_CONDOR_CREDS", "_CONDOR_CREDS, JSON"])
def test_a_token_goes_to_the_servers_of_a_private_namespace(
    private: Private, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE", "_CONDOR_CREDS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    file = tmp_path / "empty" / "scitokens.use"
    file.write_text(f'{{"access_token": "{TOKEN}", "token_type": "bearer"}}' if "JSON" in where else f"{TOKEN}\n")
    value = {"BEARER_TOKEN": TOKEN, "BEARER_TOKEN_FILE": str(file), "_CONDOR_CREDS": str(file.parent)}
    name = where.partition(",")[0]
    monkeypatch.setenv(name, value[name])
    private.near.always = "403"
    private.fetch()
    assert [asked.authorization for server in (private.near, private.far) for asked in server.asked] == [f"Bearer {TOKEN}"] * 2
    assert not [asked for asked in private.director.asked if "authorization" in asked.headers]
    assert not [path for path in private.root.rglob("*") if path.is_file() and TOKEN in path.read_text()]


def test_a_token_goes_nowhere_else(private: Private, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not to a public namespace, not in plain text, not where a server redirects to."""
    monkeypatch.setenv("BEARER_TOKEN", TOKEN)
    with FaultyServer({PATH: CONTENT}) as plain, FaultyServer({PATH: CONTENT}, private.tls) as elsewhere:
        private.director.caches = [plain.url, private.near.url]
        private.near.elsewhere = elsewhere.url
        plain.always, private.near.always = "403", "moved"
        private.fetch()
        private.director._public = True
        private.director.caches = [private.far.url]
        private.network.root = str(tmp_path / "another")
        private.fetch()
        asked = [server.asked[0].authorization for server in (plain, private.near, elsewhere, private.far)]
    assert asked == ["", f"Bearer {TOKEN}", "", ""]


def test_a_token_is_in_no_message(private: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARER_TOKEN", TOKEN)
    for server in (private.near, private.far, private.origin):
        server.always = "403"
    with pytest.raises(AccessDeniedError) as failure:
        private.fetch()
    assert TOKEN not in str(failure.value)


def test_an_invalid_token_is_not_sent(private: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARER_TOKEN", f"{TOKEN}\r\nX-Evil: 1")
    private.fetch()
    assert private.near.asked[0].authorization == ""


def test_the_index_comes_from_the_origin_alone_and_its_shards_from_caches(federation: Federation) -> None:
    """A cache keeps for ever what it has once: asked for the index, it would serve an old one ever after."""
    for server in (federation.near, federation.far, federation.origin):
        server.objects = {f"{QUOTED}/manifest/{name}": name.encode() for name in ("index.json", "shards/a.json")}
    place = open_source(f"pelican://{federation.director.host}{PREFIX}/manifest", federation.network)
    assert place.read("index.json", 100, fresh=True) == b"index.json"
    assert (len(federation.near.asked), len(federation.origin.asked)) == (0, 1)
    sha256 = "ec8bfeb1aab08ac4a2c20a96d65ab8cfdb4ff05ad3b7f7dbb9c4a4ccf8b5c3d7"
    with pytest.raises(FetchError, match="does not match its sha256 in the index"):
        place.read("shards/a.json", 100, sha256)
    assert [len(server.asked) for server in (federation.near, federation.far, federation.origin)] == [1, 1, 2]
    federation.near.always = "silent"
    federation.network.silence, place.timeout = 60, 6
    reading = ForkedCall(lambda: place.read("shards/a.json", 100))
    assert reading.result(time.monotonic() + 5) == b"shards/a.json"
    assert len(federation.far.asked) == 2, "a silent cache leaves time for the next one"


def test_an_untrusted_authority_is_reported(federation: Federation) -> None:
    federation.network = NetworkOptions(str(federation.root), silence=1)
    with pytest.raises(FetchError, match="certificate verify failed"):
        federation.fetch(until=time.monotonic() + 0.9)
    federation.network = NetworkOptions(ca="/nowhere")
    with pytest.raises(FetchError, match="cannot read the certificates in /nowhere: No such file"):
        federation.fetch(until=time.monotonic() + 0.9)


def test_an_authority_of_the_environment_is_trusted(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    federation.network = NetworkOptions(str(federation.root), silence=1)
    monkeypatch.setenv("SSL_CERT_FILE", str(federation.authority))
    assert federation.fetch() == f"{federation.near.url}{QUOTED}"
    assert os.environ["SSL_CERT_FILE"]


@pytest.mark.parametrize("namespace", ["", "namespace=/imag", "namespace=/other", "namespace=images", "nonsense"])
def test_an_answer_for_another_namespace_is_valid_for_the_file_only(federation: Federation, namespace: str) -> None:
    federation.servers(federation.asking())
    federation.director.instead = [Said(307, {"Location": f"{federation.far.url}{PATH}", "X-Pelican-Namespace": namespace})]
    for _ in range(2):
        federation.servers(federation.asking(now=time.time() + 1000))
    federation.asking(now=time.time() + 1000).find(f"{PREFIX}/another", direct=False)
    assert federation.director.lines()[2:] == [f"GET {PATH}", f"GET {QUOTED}/another"]


def test_a_director_that_does_not_answer_is_not_asked_for_the_origin(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.resolver.system.negative_cache.jitter", lambda: 600.0)  # a retry would come after the deadline
    federation.director.instead = [Said(503)] * 10
    place = open_source(f"pelican://{federation.director.host}{PREFIX}", federation.network)
    (route,) = place.routes(SIF.path, until=time.monotonic() + 60)
    with pytest.raises(FetchError, match="status 503"):
        next(iter(route.stream(SIF.path, 0, SIF.size)))
    assert len(federation.director.asked) == 1


def test_an_unwritable_cache_does_not_prevent_requests(federation: Federation, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    federation.network.root = str(tmp_path / "file")
    for _ in range(2):
        assert federation.servers(federation.asking())
    assert len(federation.director.asked) == 4
