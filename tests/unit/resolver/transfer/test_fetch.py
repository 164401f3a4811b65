"""A download through servers that misbehave: the right bytes, or an error that says what it was, in one call."""

from __future__ import annotations

import email.utils
import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.contract.records import Sif
from publisher.contract.units import format_size
from publisher.resolver.errors import AbsentError, AccessDeniedError, CacheSpaceError, CorruptError, FetchError
from publisher.resolver.transfer.fetch import fetch
from publisher.resolver.transfer.open_source import open_source
from publisher.resolver.transfer.sources import NetworkOptions, Source
from publisher.resolver.transfer.watchdog import TransferDeadline
from tests.support.ep.execution_point import sif_content, sif_of
from tests.support.osdf.faulty_cache import FAULTS, FaultyServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = sif_content("a", 2_000_000)
HALF = len(CONTENT) // 2
SIF = sif_of(CONTENT)
PATH = f"/{SIF.path}"
ALL, REST = "", f"bytes={HALF}-{len(CONTENT) - 1}"
SILENCE = 0.3  # seconds
SLOW = ("trickling", "slow-head", "stalled", "silent")


class Servers:
    """Two caches with the same object, and a directory to fetch into."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.first, self.second = (stack.enter_context(FaultyServer({PATH: CONTENT})) for _ in range(2))
        self.network = NetworkOptions(str(root), silence=SILENCE)
        self.root = root
        self.part = root / "x.part"

    def fetch(self, *servers: FaultyServer, until: float | None = None) -> str:
        places = [open_source(server.url, self.network) for server in servers or (self.first, self.second)]
        came_from = fetch(places, SIF, str(self.part), until=until)
        assert self.part.read_bytes() == CONTENT
        return came_from

    def fetch_patiently(self, *servers: FaultyServer, until: float | None = None) -> list[float]:
        """Fetch, and return how long the download would have waited."""
        waited: list[float] = []
        places = [open_source(server.url, self.network) for server in servers]
        fetch(places, SIF, str(self.part), until=until, sleep=waited.append)
        return waited

    def remembered(self) -> list[str]:
        return [path.name for path in (self.root / "failures").iterdir()]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path, stack)


RESUMED = {"truncated": REST, "stalled": f"bytes={3 << 18}-{len(CONTENT) - 1}"}
"""What the next server is asked for after a fault; everything, where it is not said."""


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("trickling", "slow-head", "whole", "shifted")])
def test_after_a_faulty_server_the_next_one_gives_the_rest(servers: Servers, fault: str) -> None:
    servers.first.always = fault
    assert servers.fetch() == servers.second.url
    assert servers.first.ranges == [ALL]
    assert servers.second.ranges == [RESUMED.get(fault, ALL)]
    assert len(servers.remembered()) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("truncated", FetchError, r"ended after \d+ of 2000000 bytes"),
        ("short", CorruptError, "has 1000000 bytes, but the manifest says 2000000"),
        ("longer", CorruptError, "has 2000004 bytes, but the manifest says 2000000"),
        ("endless", CorruptError, "larger than the 2000000 bytes in the manifest"),
        ("corrupted", CorruptError, "does not match its sha256 in the manifest"),
        ("mixed", CorruptError, "does not match its sha256 in the manifest"),
        ("stalled", FetchError, "timed out"),
        ("silent", FetchError, "timed out"),
        ("looping", FetchError, "too many redirects"),
        ("elsewhere", FetchError, "the URL is not http or https"),
        ("empty", FetchError, "ended after 0 of 2000000 bytes"),
        ("reset", FetchError, "closed connection without response"),
        ("garbage", FetchError, "SSH-2.0-OpenSSH"),
        ("401", AccessDeniedError, "status 401 Unauthorized"),
        ("403", AccessDeniedError, "status 403 Forbidden"),
        ("404", AbsentError, "status 404 Not Found"),
        ("416", CorruptError, "status 416"),
        ("429", FetchError, "status 429 Too Many Requests"),
        ("500", FetchError, "status 500 Internal Server Error"),
        ("504", FetchError, "status 504 Gateway Timeout"),
    ],
)
def test_a_server_that_is_always_faulty_is_named_with_its_fault(
    servers: Servers, fault: str, kind: type[FetchError], message: str
) -> None:
    servers.first.always = fault
    with pytest.raises(FetchError, match=f"{servers.first.url}: {SIF.path}: .*{message}") as failure:
        servers.fetch(servers.first)
    assert type(failure.value) is kind
    kept_to_be_continued = fault in ("truncated", "stalled")
    assert servers.part.exists() == kept_to_be_continued
    assert len(servers.first.asked) == (1 if kind in (AbsentError, AccessDeniedError) else 2)


def test_a_corrupt_first_half_is_downloaded_again_and_only_its_server_is_blamed(servers: Servers) -> None:
    """The first one's bytes are wrong and break off; the second one, which is right, is asked for the rest, then for all."""
    servers.first.objects[PATH] = bytes(len(CONTENT))
    servers.first.always = "truncated"
    assert servers.fetch() == servers.second.url
    assert servers.second.ranges == [REST, ALL]


def test_wrong_bytes_of_an_earlier_process_are_downloaded_again(servers: Servers) -> None:
    servers.part.write_bytes(bytes(HALF))
    servers.fetch(servers.first)
    assert servers.first.ranges == [REST, ALL]


def test_two_broken_servers_deliver_one_half_each(servers: Servers) -> None:
    servers.first.faults = ["truncated"]
    servers.second.faults = ["truncated"]
    assert servers.fetch() == servers.first.url
    assert servers.first.ranges == [ALL, f"bytes={HALF + HALF // 2}-{len(CONTENT) - 1}"]
    assert servers.second.ranges == [REST]


@pytest.mark.parametrize("fault", ["whole", "shifted"])
def test_a_server_that_ignores_the_range_is_used_and_one_that_shifts_it_is_not(servers: Servers, fault: str) -> None:
    servers.part.write_bytes(CONTENT[:HALF])
    servers.first.always = fault
    assert servers.fetch() == (servers.first.url if fault == "whole" else servers.second.url)
    assert servers.first.ranges == [REST]


def test_skipped_bytes_count_for_the_servers_speed(servers: Servers) -> None:
    servers.first.always = "whole"
    now = 0.0
    deadline = TransferDeadline(lambda: now, 10.0)
    (route,) = open_source(servers.first.url, servers.network).routes(SIF.path)
    got = b"".join(bytes(chunk) for chunk in route.stream(SIF.path, HALF, len(CONTENT), deadline))
    now = 11.0
    assert got == CONTENT[HALF:]
    assert deadline.problem() == f"only {format_size(HALF)} received in time", "what it yields its user counts"


def test_a_server_that_ignores_ranges_gets_the_time_for_the_whole_file(servers: Servers) -> None:
    now = 0.0

    class Whole(Source):
        network = NetworkOptions(slowest=10_000)

        def stream(
            self, name: str, start: int, size: int | None, deadline: TransferDeadline | None = None, _: object = None
        ) -> Iterator[bytes]:
            nonlocal now
            assert (name, size) == (SIF.path, len(CONTENT))
            assert deadline is not None
            now += 150  # ten seconds would be enough for the rest
            deadline.add(start)
            yield CONTENT[start:-1]
            yield CONTENT[-1:]

    servers.part.write_bytes(CONTENT[:-100_000])
    assert fetch([Whole("whole")], SIF, str(servers.part), clock=lambda: now) == "whole"


def test_a_cache_with_wrong_bytes_is_asked_last(servers: Servers) -> None:
    """In this download, and in the next ones on this host."""
    servers.first.always = "corrupted"
    servers.second.faults = ["500"]
    assert servers.fetch() == servers.second.url
    assert (len(servers.first.asked), len(servers.second.asked)) == (1, 2)
    servers.part.unlink()
    assert servers.fetch() == servers.second.url
    assert (len(servers.first.asked), len(servers.second.asked)) == (1, 3)


def test_a_server_that_failed_is_asked_last_by_the_next_downloads_until_it_works(servers: Servers) -> None:
    servers.first.faults = ["504"]
    assert servers.fetch() == servers.second.url
    servers.second.always = "500"
    servers.part.unlink()
    assert servers.fetch() == servers.first.url
    assert [len(server.asked) for server in (servers.first, servers.second)] == [2, 2]
    servers.second.always = ""
    servers.part.unlink()
    assert servers.fetch() == servers.first.url, "it worked, so it is first again"


def test_a_missing_file_is_not_recorded_as_a_failure_of_the_server(servers: Servers) -> None:
    servers.first.faults = ["404"]
    servers.fetch()
    (name,) = servers.remembered()
    assert name.startswith(f"{SIF.sha256[:32]}-at-")


def test_the_callers_deadline_ends_a_stall(servers: Servers) -> None:
    servers.network.silence = 60
    servers.first.always = "stalled"
    with pytest.raises(FetchError, match="in time"):
        servers.fetch(until=time.monotonic() + 0.5)
    assert servers.second.asked == []
    assert not (servers.root / "failures").exists()


@pytest.mark.parametrize("fault", ["trickling", "slow-head"])
def test_a_server_that_sends_a_byte_now_and_then_does_not_outlast_the_deadline(servers: Servers, fault: str) -> None:
    servers.network.silence = 60
    servers.first.always = fault
    with pytest.raises(FetchError, match=r"only \d+.* received in time"):
        servers.fetch(until=time.monotonic() + 0.5)


def test_a_server_below_the_minimum_speed_is_abandoned(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.resolver.transfer.watchdog.WINDOW", 0.3)
    servers.first.always = "trickling"
    assert servers.fetch(until=time.monotonic() + 20) == servers.second.url


def test_a_host_at_its_limit_of_threads_can_fetch(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    without = SimpleNamespace(Thread=Refused, Event=threading.Event, Lock=threading.Lock)
    monkeypatch.setattr("publisher.resolver.transfer.watchdog.threading", without)
    monkeypatch.setattr("publisher.resolver.transfer.hashing.threading", without)
    servers.first.always = "stalled"
    assert servers.fetch() == servers.second.url


def test_a_file_without_enough_space_is_not_downloaded(servers: Servers) -> None:
    with pytest.raises(CacheSpaceError, match=r"no space for .*, which needs 1152921.5 TB"):
        fetch([open_source(servers.first.url)], Sif(SIF.path, SIF.sha256, 1 << 60), str(servers.part))
    assert servers.first.asked == []
    assert not servers.part.exists()


def test_a_complete_file_causes_no_request(servers: Servers) -> None:
    servers.part.write_bytes(CONTENT)
    assert servers.fetch() == ""
    assert servers.first.asked == []


def test_a_connection_that_breaks_after_the_last_byte_is_no_failure(servers: Servers) -> None:
    class Late(Source):
        network = servers.network

        def stream(self, name: str, start: int, size: int | None, _: object = None, __: object = None) -> Iterator[bytes]:
            assert (name, start, size) == (SIF.path, 0, len(CONTENT))
            yield CONTENT
            raise FetchError("connection reset")

    assert fetch([Late("late"), open_source(servers.second.url)], SIF, str(servers.part)) == "late"
    assert not (servers.root / "failures").exists()


def test_a_query_is_sent_and_appears_in_no_message(servers: Servers) -> None:
    """Not where it came from, not why it did not come, not in what is remembered of that."""
    servers.first.always = "404"
    places = [open_source(f"{server.url}?authz=s3cret", servers.network) for server in (servers.first, servers.second)]
    assert fetch(places, SIF, str(servers.part)) == servers.second.url
    assert [asked.path for server in (servers.first, servers.second) for asked in server.asked] == [f"{PATH}?authz=s3cret"] * 2
    servers.part.unlink()
    servers.second.always = "500"
    with pytest.raises(FetchError) as failure:
        fetch(places, SIF, str(servers.part))
    assert f"{servers.second.url}: {SIF.path}: status 500" in str(failure.value)
    for text in (str(failure.value), *(path.read_text() for path in (servers.root / "failures").iterdir())):
        assert "s3cret" not in text


def test_two_queries_are_two_routes(servers: Servers) -> None:
    servers.first.faults = ["403"]
    places = [open_source(f"{servers.first.url}{query}", servers.network) for query in ("?authz=one", "?authz=another")]
    assert fetch(places, SIF, str(servers.part)) == servers.first.url


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from([fault for fault in FAULTS if fault not in SLOW]), max_size=3), min_size=1, max_size=3))
def test_any_sequence_of_faults_ends_with_the_right_bytes_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, faults: list[list[str]]
) -> None:
    root = tmp_path_factory.mktemp("any")
    with ExitStack() as stack:
        network = NetworkOptions(str(root), silence=SILENCE)
        running = [stack.enter_context(FaultyServer({PATH: CONTENT})) for _ in faults]
        for server, several in zip(running, faults):
            server.faults = list(several)
        places = [open_source(server.url, network) for server in running]
        try:
            assert fetch(places, SIF, str(root / "x.part")) in {server.url for server in running}
        except FetchError:
            assert (root / "x.part").stat().st_size < len(CONTENT) if (root / "x.part").exists() else True
        else:
            assert (root / "x.part").read_bytes() == CONTENT
        assert {path.name for path in root.iterdir()} <= {"x.part", "failures"}
        if any(not several for several in faults):
            assert (root / "x.part").read_bytes() == CONTENT, "one server was right all the time"


def test_a_busy_server_is_left_alone_while_another_one_has_the_file(servers: Servers) -> None:
    servers.first.always, servers.first.retry_after = "429", "60"
    assert servers.fetch() == servers.second.url
    servers.part.unlink()
    servers.first.always = ""
    assert servers.fetch() == servers.second.url, "the next download of this host leaves it alone as well"
    assert len(servers.first.asked) == 1


@pytest.mark.parametrize("header", ["40", "date"])
def test_a_download_waits_for_a_busy_server_if_nobody_else_has_the_file(servers: Servers, header: str) -> None:
    later = email.utils.formatdate(time.time() + 40, usegmt=True)
    servers.first.faults, servers.first.retry_after = ["429"], later if header == "date" else header
    servers.second.always = "404"
    (waited,) = servers.fetch_patiently(servers.first, servers.second)
    assert 0 < waited <= 41  # the pause is kept in whole seconds
    assert len(servers.first.asked) == 2


@pytest.mark.parametrize(("header", "left"), [("61", None), ("100000000", None), ("30", 20.0)])
def test_no_download_waits_longer_than_a_minute_or_its_own_deadline(servers: Servers, header: str, left: float | None) -> None:
    servers.first.always, servers.first.retry_after = "429", header
    with pytest.raises(FetchError, match="the server is busy and wants no requests for"):
        servers.fetch_patiently(servers.first, until=None if left is None else time.monotonic() + left)
    assert len(servers.first.asked) == 1


def test_a_header_that_says_nothing_changes_nothing(servers: Servers) -> None:
    servers.first.faults, servers.first.retry_after = ["429"], "soon"
    assert servers.fetch_patiently(servers.first) == []
    assert len(servers.first.asked) == 2
