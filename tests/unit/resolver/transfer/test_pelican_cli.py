"""The command ``pelican`` as a route to a file. The command is a fake, since the real one is not packaged."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from publisher.resolver.errors import DeadlineError, FetchError
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.transfer.fetch import fetch
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.sources import AUTO, PELICAN, NetworkOptions
from publisher.resolver.transfer.watchdog import TransferDeadline
from tests.support.checkout import ROOT
from tests.support.ep.execution_point import lay_down, sif_content, sif_of
from tests.support.osdf.faulty_cache import FaultyServer
from tests.support.osdf.federation import Director
from tests.support.registries.scripted_http import certificate

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("own_reads")

FAKES = ROOT / "tests/fakes"
CONTENT = sif_content("a", 2_000_000)
SIF = sif_of(CONTENT)


class Site:
    """A host with the command, and objects that it can fetch."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root / "cache"
        self.root.mkdir()
        self.part = self.root / "x.part"
        self.network = NetworkOptions(str(self.root), fetch_with=PELICAN)
        self._log = root / "log"
        self._set = monkeypatch.setenv
        monkeypatch.setenv("PATH", f"{FAKES}:{os.environ['PATH']}")
        monkeypatch.setenv("PELICAN_TEST_OBJECTS", str(root / "objects"))
        monkeypatch.setenv("PELICAN_TEST_LOG", str(self._log))
        lay_down({SIF.path: CONTENT}, root / "objects")

    def goes_wrong(self, mode: str) -> None:
        self._set("PELICAN_TEST_MODE", mode)

    def fetch(self, clock: Callable[[], float] = time.monotonic, until: float | None = None) -> str:
        place = open_source("pelican://federation.invalid/images", self.network)
        return fetch([place], SIF, str(self.part), clock, until)

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def calls_so_far(self) -> int:
        return self._log.read_bytes().count(b"\n") if self._log.exists() else 0

    def left(self) -> list[Path]:
        return list((self.root / "pelican").iterdir())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_the_command_fetches_with_these_arguments_and_part_of_the_environment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("BEARER_TOKEN_FILE", "/run/token")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user")
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    assert site.fetch() == "pelican://federation.invalid/images"
    assert site.part.read_bytes() == CONTENT
    (call,) = site.calls()
    *words, target = call["argv"]
    assert words == ["object", "get", f"pelican://federation.invalid/images/{SIF.path}"]
    assert Path(target).parent.parent == site.root / "pelican"
    assert not {"BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR"} & call["env"].keys()
    assert call["env"]["https_proxy"] == "http://proxy.example.org:3128"
    assert "LD_PRELOAD" not in call["env"]
    assert site.left() == []


@pytest.mark.parametrize(("place", "given"), [("federation.invalid/images", "/run/token"), ("federation.invalid/image", None)])
def test_the_command_gets_tokens_for_a_federation_with_an_issuer(
    site: Site, monkeypatch: pytest.MonkeyPatch, place: str, given: str | None
) -> None:
    monkeypatch.setenv("BEARER_TOKEN_FILE", "/run/token")
    site.network.token_issuers = ((place, "https://issuer.invalid"),)
    site.fetch()
    assert site.calls()[0]["env"].get("BEARER_TOKEN_FILE") == given


def test_the_command_gets_the_authorities_that_the_site_trusts(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", "/of/others")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    for ca in ("", str(tmp_path / "ca.pem"), str(tmp_path)):
        site.network.ca = ca
        site.fetch()
        site.part.unlink()
    given = [[call["env"].get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")] for call in site.calls()]
    assert given == [["/of/others", None], [str(tmp_path / "ca.pem"), None], ["/of/others", str(tmp_path)]]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("fails", r"the command pelican: status 11: ERROR\[2026-11-24\] Error code 6000: \[31mtransfer failed \[0m"),
        ("nothing", "the command pelican: no file was written"),
        ("link", "the command pelican: no file was written"),
        ("error-text", "ended after 18 of 2000000 bytes"),
        ("short", "ended after 1000000 of 2000000 bytes"),
        ("long", "the command pelican: status -?[0-9]+"),
        ("floods", "the command pelican: status -?[0-9]+"),
    ],
)
def test_wrong_results_of_the_command_are_detected(site: Site, mode: str, message: str) -> None:
    site.goes_wrong(mode)
    site.part.write_bytes(CONTENT[:1000])
    with pytest.raises(FetchError, match=message):
        site.fetch()
    assert len(site.calls()) == 2
    assert site.left() == []
    assert site.part.exists() == (mode in ("error-text", "short")), "room for two of them was never asked for"
    assert not site.part.is_symlink()


@pytest.mark.parametrize("token", ["eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl", "an/opaque+token=="])
@pytest.mark.parametrize("said", ["https://x/y?authz=Bearer%20{quoted}&a=b", "https://x/y?a=b&authz={quoted}", "{token} expired"])
def test_a_token_in_the_commands_output_is_redacted(site: Site, monkeypatch: pytest.MonkeyPatch, token: str, said: str) -> None:
    monkeypatch.setenv("BEARER_TOKEN", token)
    quoted = urllib.parse.quote(token, safe="")
    monkeypatch.setenv("PELICAN_TEST_SAYS", f'Get "{said.format(token=token, quoted=quoted)}": 403')
    site.goes_wrong("fails")
    with pytest.raises(FetchError, match=r'the command pelican: status 11: Get ".*TOKEN.*: 403') as failure:
        site.fetch()
    for text in (str(failure.value), *(path.read_text() for path in (site.root / "failures").iterdir())):
        assert token[:8] not in text
        assert quoted[:8] not in text


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    until = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < until:
        os.sched_yield()
    return not is_running(pid)


def test_at_the_deadline_the_command_and_its_children_are_killed(site: Site) -> None:
    site.goes_wrong("hangs")
    with pytest.raises(FetchError, match=r"in time: .* the command pelican: only [\d.]+ k?B received in time"):
        site.fetch(lambda: 5 if site.calls_so_far() == 2 else 0, until=4)
    call, child = site.calls()
    assert gone(call["pid"])
    assert gone(child["child"])
    assert site.left() == []


@pytest.mark.forked
def test_the_command_does_not_outlive_the_fetching_process(site: Site) -> None:
    """A hook kills that process at the deadline, and it can end nothing then."""
    site.goes_wrong("hangs")
    fetching = ForkedCall(lambda: site.fetch().encode())
    until = time.monotonic() + 20
    while site.calls_so_far() < 2 and time.monotonic() < until:
        os.sched_yield()
    with pytest.raises(DeadlineError):
        fetching.result(0)
    call, child = site.calls()
    assert gone(call["pid"])
    assert gone(child["child"])


def test_the_command_is_ended_before_the_deadline(site: Site) -> None:
    site.goes_wrong("hangs")
    readings = itertools.chain(itertools.repeat(0.0, 100), itertools.repeat(1.0))
    (route,) = open_source("pelican://federation.invalid/images", site.network).routes(SIF.path)
    with pytest.raises(FetchError, match="B received in time"):
        route.download(SIF.path, SIF.size, TransferDeadline(lambda: next(readings), 0.2), lambda _: None)
    assert next(readings) == 0.0
    assert site.left() == []


def test_children_that_the_command_leaves_are_killed(site: Site) -> None:
    site.goes_wrong("hangs-behind")
    site.fetch()
    assert gone(site.calls()[1]["child"])


def test_files_of_a_killed_process_are_swept_and_those_of_a_running_one_are_not(site: Site) -> None:
    for name in ("dead", "alive"):
        (site.root / "pelican" / name).mkdir(parents=True)
        (site.root / "pelican" / name / ".object.x7f3").write_bytes(b"begun")
    alive = os.open(site.root / "pelican" / "alive", os.O_RDONLY)
    fcntl.flock(alive, fcntl.LOCK_EX)
    try:
        site.fetch()
    finally:
        os.close(alive)
    assert [path.name for path in site.left()] == ["alive"]


def test_a_partial_file_of_another_route_is_replaced(site: Site) -> None:
    site.part.write_bytes(CONTENT[:1000])
    site.fetch()
    assert site.part.read_bytes() == CONTENT


def test_a_missing_command_is_reported(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FetchError, match="the command pelican is not installed"):
        site.fetch()


def test_a_command_that_cannot_be_started_fails_only_this_route(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/pelican").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "bin/pelican").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    lay_down({SIF.path: CONTENT}, tmp_path / "mirror")
    places = [open_source("pelican://federation.invalid/images", site.network), open_source(str(tmp_path / "mirror"))]
    assert fetch(places, SIF, str(site.part)) == str(tmp_path / "mirror")
    site.part.unlink()
    with pytest.raises(FetchError, match="cannot be started: Exec format error"):
        site.fetch()


def test_with_auto_the_command_comes_after_the_servers(site: Site, tmp_path: Path) -> None:
    authority, tls = certificate(tmp_path, "localhost")
    network = NetworkOptions(str(site.root), fetch_with=AUTO, silence=1, ca=str(authority))
    with FaultyServer({f"/images/{SIF.path}": CONTENT}) as server, Director(tls, "/images", server.url) as director:
        place = open_source(f"pelican://{director.host}/images", network)
        assert fetch([place], SIF, str(site.part)) == f"{server.url}/images"
        site.part.unlink()
        server.always = "404"
        assert fetch([place], SIF, str(site.part)) == f"pelican://{director.host}/images"


def test_shards_are_read_from_servers_even_with_the_command(site: Site, tmp_path: Path) -> None:
    authority, tls = certificate(tmp_path, "localhost")
    network = NetworkOptions(str(site.root), fetch_with=PELICAN, ca=str(authority))
    with FaultyServer({"/images/a": b"here"}) as server, Director(tls, "/images", server.url) as director:
        assert open_source(f"pelican://{director.host}/images", network).read("a", 100) == b"here"


def test_without_the_reapers_shell_nothing_is_started(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.contract.reaper._SHELL", "/nowhere/sh")
    with pytest.raises(FetchError, match="/nowhere/sh cannot be started: No such file"):
        site.fetch()
    assert site.calls_so_far() == 0
