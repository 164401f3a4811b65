from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.build import sif
from publisher.contract.errors import InvalidReferenceError
from publisher.contract.records import BLOCKED, Sif
from publisher.resolver.errors import ArchitectureError, CacheBusyError, CacheSpaceError, FetchError, UnknownImageError
from publisher.resolver.hook import statuses
from publisher.resolver.hook.decide import decide
from publisher.resolver.hook.job import Job
from publisher.resolver.select import foreign
from publisher.resolver.system.notes import Warnings
from tests.support.ep.execution_point import NOW, record, version
from tests.support.machine import child_process
from tests.support.osdf.faulty_cache import FaultyServer
from tests.support.osdf.federation import Director
from tests.support.osdf.file_server import FileServer
from tests.support.registries.scripted_http import certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from publisher.resolver.hook.decision import Decision
    from tests.support.ep.execution_point import ExecutionPoint


def sif_bytes(path: Path, *, arch: str = "amd64", filling: bytes = b"content") -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(sif.DATA_OFFSET) + b"hsqs" + filling * 1000)
    sif.write_sif_header(path, architecture=arch, identity=hashlib.sha256(filling).digest(), epoch=1)
    return path.read_bytes()


class Elsewhere:
    """A web server of others, and an execution point that fetches from there."""

    def __init__(self, ep: ExecutionPoint, web: FileServer) -> None:
        self.ep = ep
        self.web = web
        self.file = web.root / "sif" / "theirs.sif"
        self.content = sif_bytes(self.file)
        self.url = f"{web.url}/sif/theirs.sif"
        self.now = float(NOW)
        self.changed: dict[str, str | list[str] | None] = {}

    def fetch(self, url: str = "", seconds: float = 60.0) -> tuple[Sif, str, str]:
        settings = self.ep.settings(**self.changed)
        return foreign.ensure(url or self.url, settings, now=self.now, until=time.monotonic() + seconds, starter=None)

    def left(self) -> set[str]:
        """Files of the cache that are no SIF and no memory."""
        names = {path.name for path in self.ep.cache.rglob("*") if path.is_file()}
        return {name for name in names if name.endswith(".part") or name.startswith(".")}


@pytest.fixture
def elsewhere(ep: ExecutionPoint) -> Iterator[Elsewhere]:
    theirs = ep.root / "theirs"
    theirs.mkdir()
    with FileServer(theirs) as web:
        yield Elsewhere(ep, web)


def test_it_is_fetched_once_and_stands_under_its_sha256(elsewhere: Elsewhere) -> None:
    found, path, came_from = elsewhere.fetch()
    assert (found.sha256, found.size) == (hashlib.sha256(elsewhere.content).hexdigest(), len(elsewhere.content))
    assert path == f"{elsewhere.ep.cache}/sif/{found.sha256[:2]}/{found.sha256}.sif"
    assert Path(path).read_bytes() == elsewhere.content
    assert came_from == f"{elsewhere.web.url}/sif"
    assert elsewhere.fetch()[1:] == (path, "")
    assert elsewhere.web.downloads() == 1
    assert elsewhere.left() == set()


def test_a_query_goes_with_the_request(elsewhere: Elsewhere) -> None:
    elsewhere.fetch(f"{elsewhere.url}?authz=1")
    assert elsewhere.web.requests == [("/sif/theirs.sif?authz=1", "")]


def test_what_is_quoted_in_a_url_is_quoted_once(elsewhere: Elsewhere) -> None:
    authority, tls = certificate(elsewhere.ep.root, "localhost")
    elsewhere.changed = {"ca": str(authority)}
    path = "/their%20images/a%3Ab%20c.sif"
    sif_bytes(elsewhere.web.root / path.lstrip("/"))
    elsewhere.fetch(f"{elsewhere.web.url}{path}")
    with FileServer(elsewhere.web.root, tls=tls) as web:
        server = web.url.replace("127.0.0.1", "localhost")
        with Director(tls, "/their%20images", server) as director:
            elsewhere.fetch(f"pelican://{director.host}{path}")
        assert [*elsewhere.web.requests, *web.requests] == [(path, "")] * 2


def test_a_name_that_gets_other_content_is_believed_for_a_while_only(elsewhere: Elsewhere) -> None:
    old = elsewhere.fetch()[0]
    new = sif_bytes(elsewhere.file, filling=b"renewed")
    elsewhere.now = NOW + foreign.MAX_AGE - 1
    assert elsewhere.fetch()[0].sha256 == old.sha256
    for later in (NOW + foreign.MAX_AGE, NOW - 86400):
        elsewhere.now = later
        assert elsewhere.fetch()[0].sha256 == hashlib.sha256(new).hexdigest()


def test_a_job_that_waited_for_one_that_began_later_fetches_nothing(elsewhere: Elsewhere) -> None:
    """The record of what was fetched has the time at which that job began, in whole seconds."""
    elsewhere.fetch()
    elsewhere.now = NOW - 2
    elsewhere.fetch()
    assert elsewhere.web.downloads() == 1


def test_what_was_removed_from_the_cache_is_fetched_again(elsewhere: Elsewhere) -> None:
    found, path, _ = elsewhere.fetch()
    for file in elsewhere.ep.cache.rglob(f"{found.sha256}.*"):
        file.unlink()
    assert elsewhere.fetch()[1] == path
    assert elsewhere.web.downloads() == 2


def in_a_process(elsewhere: Elsewhere, answers: multiprocessing.SimpleQueue[str]) -> None:
    answers.put(elsewhere.fetch()[1])


def test_many_that_want_it_at_once_make_one_download(elsewhere: Elsewhere) -> None:
    elsewhere.web.faults = ["stall"]
    fork = multiprocessing.get_context("fork")
    answers: multiprocessing.SimpleQueue[str] = fork.SimpleQueue()
    jobs = [fork.Process(target=in_a_process, args=(elsewhere, answers)) for _ in range(5)]
    for job in jobs:
        job.start()
    elsewhere.web.stalled.wait()  # half of it came; then that one breaks off
    jobs_that_fail = elsewhere.web.downloads()
    elsewhere.web.released.set()
    for job in jobs:
        job.join()
    assert jobs_that_fail == 1
    assert elsewhere.web.downloads() == 1, "the others hear that it failed a moment ago"
    assert answers.empty()


@pytest.mark.parametrize(
    ("make", "kind", "why"),
    [
        (lambda path: path.unlink(), UnknownImageError, "http.* does not exist"),
        (lambda path: path.write_bytes(b"<html>not found</html>" * 100), InvalidReferenceError, "is not a SIF"),
        (lambda path: path.write_bytes(b""), InvalidReferenceError, "is not a SIF"),
        (lambda path: sif_bytes(path, arch="arm64"), ArchitectureError, "is for arm64, but this machine is amd64"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), FetchError, r"ended after \d+ of \d+ bytes"),
    ],
    ids=["absent", "a page", "empty", "another machine's", "cut"],
)
def test_what_is_no_whole_sif_for_this_machine_is_refused(
    elsewhere: Elsewhere, make: Callable[[Path], object], kind: type[Exception], why: str
) -> None:
    make(elsewhere.file)
    with pytest.raises(kind, match=why):
        elsewhere.fetch()
    with pytest.raises(kind, match=f"not retried yet: .*{why}") as again:
        elsewhere.fetch()
    assert again.type is kind
    assert elsewhere.web.downloads() == 1
    assert elsewhere.left() == set()
    assert not list(elsewhere.ep.cache.rglob("*.sif"))


def test_it_does_not_come_by_the_command_that_wants_to_know_sizes(elsewhere: Elsewhere) -> None:
    authority, tls = certificate(elsewhere.ep.root, "localhost")
    elsewhere.changed = {"ca": str(authority), "fetch_with": "pelican"}
    with FileServer(elsewhere.web.root, tls=tls) as web:
        server = web.url.replace("127.0.0.1", "localhost")
        with Director(tls, "/sif", server) as director:
            assert elsewhere.fetch(f"pelican://{director.host}/sif/theirs.sif")[2] == f"{server}/sif"


def test_a_federations_server_that_speaks_plain_http_is_left_alone(elsewhere: Elsewhere) -> None:
    """Whoever stands on the way could change the file, and nothing would tell."""
    authority, tls = certificate(elsewhere.ep.root, "localhost")
    elsewhere.changed = {"ca": str(authority)}
    with (
        Director(tls, "/sif", elsewhere.web.url) as director,
        pytest.raises(
            FetchError, match=f"{elsewhere.web.url}/sif: the server offers only plain http, and the file has no signature"
        ),
    ):
        elsewhere.fetch(f"pelican://{director.host}/sif/theirs.sif")
    assert elsewhere.web.requests == []


@pytest.mark.parametrize(
    ("arch", "kind"), [("arm64", ArchitectureError), ("", InvalidReferenceError)], ids=["another machine's", "none"]
)
def test_no_more_comes_of_it_than_says_that_it_will_not_do(elsewhere: Elsewhere, arch: str, kind: type[Exception]) -> None:
    elsewhere.file.write_bytes(bytes(2_000_000))
    if arch:
        sif_bytes(elsewhere.file, arch=arch, filling=b"much content" * 200)
    elsewhere.web.faults = ["stall"]
    with pytest.raises(kind):  # while the server still sends
        elsewhere.fetch()
    elsewhere.web.released.set()


def test_what_has_come_right_is_a_failure_no_more(elsewhere: Elsewhere) -> None:
    elsewhere.file.write_bytes(b"<html>")
    with pytest.raises(InvalidReferenceError):
        elsewhere.fetch()
    noted = next((elsewhere.ep.cache / "failures").iterdir())
    noted.write_text(f"1 {time.time() - 1} InvalidReferenceError its time is over")
    sif_bytes(elsewhere.file)
    elsewhere.fetch()
    assert not noted.exists()


class Federated:
    """A cache and an origin of others, both of which have something else than a SIF at first, and a director."""

    URL = "/images/theirs.sif"

    def __init__(self, ep: ExecutionPoint, stack: ExitStack) -> None:
        authority, tls = certificate(ep.root, "localhost")
        self.cache, self.origin = (
            stack.enter_context(FaultyServer({self.URL: b"<html>oops</html>" * 99}, tls)) for _ in range(2)
        )
        self.director = stack.enter_context(Director(tls, "/images", self.origin.url, [self.cache.url]))
        self.content = sif_bytes(ep.root / "theirs.sif")
        self._settings = ep.settings(ca=str(authority), fetch_with="pelican")  # which fetches only what has a known size

    def fetch(self) -> tuple[Sif, str, str]:
        url = f"pelican://{self.director.host}{self.URL}"
        return foreign.ensure(url, self._settings, now=float(NOW), until=time.monotonic() + 60, starter=None)


@pytest.fixture
def federated(ep: ExecutionPoint) -> Iterator[Federated]:
    with ExitStack() as stack:
        yield Federated(ep, stack)


@pytest.mark.parametrize("cut", [False, True])
def test_what_one_cache_has_wrong_the_next_server_may_have(federated: Federated, cut: bool) -> None:
    federated.origin.objects = {federated.URL: federated.content}
    if cut:
        federated.cache.objects = {federated.URL: federated.content[:-1]}
    found, path, came_from = federated.fetch()
    assert found.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest() == hashlib.sha256(federated.content).hexdigest()
    assert came_from == f"{federated.origin.url}/images"


def test_what_is_no_sif_or_absent_everywhere_is_what_the_origin_says(federated: Federated) -> None:
    federated.cache.objects = {}
    with pytest.raises(InvalidReferenceError, match="is not a SIF"):
        federated.fetch()


def test_an_origin_that_has_none_counts_more_than_a_caches_page(federated: Federated) -> None:
    federated.origin.objects = {}
    with pytest.raises(UnknownImageError, match=r"pelican.* does not exist"):
        federated.fetch()


def test_a_page_is_no_answer_where_another_server_fails(federated: Federated) -> None:
    federated.origin.always = "403"
    with pytest.raises(FetchError, match="403"):
        federated.fetch()


def test_a_failure_is_not_tried_again_by_the_next_job(elsewhere: Elsewhere) -> None:
    elsewhere.web.faults = ["error"]
    with pytest.raises(FetchError, match="500"):
        elsewhere.fetch()
    with pytest.raises(FetchError, match="not retried yet"):
        elsewhere.fetch()
    assert elsewhere.web.downloads() == 1


def test_what_breaks_off_is_said_and_leaves_nothing(elsewhere: Elsewhere) -> None:
    elsewhere.web.faults = ["cut"]
    with pytest.raises(FetchError):
        elsewhere.fetch()
    assert elsewhere.left() == set()


def test_its_time_is_the_jobs(elsewhere: Elsewhere) -> None:
    elsewhere.web.faults = ["stall"]
    try:
        with pytest.raises((FetchError, CacheBusyError)):
            elsewhere.fetch(seconds=0.5)
    finally:
        elsewhere.web.released.set()
    assert elsewhere.fetch()[2], "the next job's time is its own"


def test_what_has_no_room_is_not_written(elsewhere: Elsewhere) -> None:
    elsewhere.changed = {"cache_free": "100 %"}
    for downloads in (1, 2):
        for said in ("no space in the cache .* whose size is unknown", r"not retried yet: no space .*\(1 in a row"):
            with pytest.raises(CacheSpaceError, match=said):
                elsewhere.fetch()
        assert elsewhere.web.downloads() == downloads
        noted = next((elsewhere.ep.cache / "failures").iterdir())
        noted.write_text(f"1 {time.time() - 1} RoomError its time is over")
    assert elsewhere.left() == set()


def test_a_quota_that_shows_only_when_it_is_full_is_no_room(elsewhere: Elsewhere) -> None:
    sif_bytes(elsewhere.file, filling=b"much content" * 200)

    def with_little() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        with pytest.raises(CacheSpaceError, match=r"no space in the cache .* whose size is unknown"):
            elsewhere.fetch()

    assert child_process.end(child_process.start(with_little)) == 0
    assert elsewhere.left() == set()


def test_what_killed_processes_left_goes_with_time(elsewhere: Elsewhere) -> None:
    directory = elsewhere.ep.cache / "foreign"
    directory.mkdir(parents=True)
    elsewhere.ep.cache.chmod(0o700)
    for name, age in (("old.part", 90_000), ("old", 90_000), ("young.part", 60)):
        (directory / name).write_text("")
        os.utime(directory / name, (time.time() - age,) * 2)
    elsewhere.fetch()
    assert {path.name for path in directory.iterdir()} == {"young.part", hashlib.sha256(elsewhere.url.encode()).hexdigest()}


def decided(ep: ExecutionPoint, url: str, **changed: str) -> Decision:
    job, notes = Job({"containerimage": url}), Warnings()
    settings = ep.settings(unknown="fetch", **changed)
    return decide(job, settings, scratch=str(ep.root), now=NOW, until=time.monotonic() + 60, notes=notes)


def test_a_job_gets_it_where_the_site_wants_that(ep: ExecutionPoint) -> None:
    ep.publish(record("htc/rocky:9"))
    theirs = ep.root / "theirs"
    content = sif_bytes(theirs / "sif" / "theirs.sif")
    authority, context = certificate(ep.root, "localhost")
    sha256 = hashlib.sha256(content).hexdigest()
    with FileServer(theirs, tls=context) as web:
        place = web.url.replace("127.0.0.1", "localhost")
        url = f"{place}/sif/theirs.sif"
        found = decided(ep, url, ca=str(authority))
        assert found.code == statuses.OK, found.message
        assert (found.code, found.updates["SingularityImage"]) == (0, f"{ep.cache}/sif/{sha256[:2]}/{sha256}.sif")
        assert found.updates["WantSIF"] is True
        assert sha256 in found.message
        assert found.chirp_attributes == {"ImageName": url, "ImageSha256": sha256, "ImageForm": "sif"}
        line = found.to_json()
        assert (line["form"], line["sif_source"], line["bytes"]) == ("sif", f"{place}/sif", len(content))
        for policy in ({"unknown": "pass"}, {"never": "sif"}):
            settings = ep.settings(**{"unknown": "fetch", "ca": str(authority), **policy})
            job = Job({"containerimage": url, "wantsif": True})
            passed = decide(job, settings, scratch=str(ep.root), now=NOW, until=time.monotonic() + 60, notes=Warnings())
            assert (passed.code, passed.updates) == (0, {})
        assert decided(ep, f"{place}/sif/absent.sif", ca=str(authority)).code == statuses.NO_IMAGE
        bad = version("bad", sif=Sif(f"sif/{sha256[:2]}/{sha256}.sif", sha256, len(content)), state=BLOCKED)
        ep.publish(record("bad/one:1", amd64=[bad]), serial=2)
        assert decided(ep, url, ca=str(authority)).code == statuses.BLOCKED


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.sif", "docker://ubuntu:22.04", "oras://x/y:1", "/home/user/x.sif"])
def test_what_anybody_on_the_way_could_change_is_passed_on(ep: ExecutionPoint, url: str) -> None:
    ep.publish(record("htc/rocky:9"))
    assert decided(ep, url).updates["SingularityImage"] == url
