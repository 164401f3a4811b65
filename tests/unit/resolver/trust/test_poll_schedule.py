"""The manifest over the network: asked once in a while for a whole host, and never forgotten for that."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.contract import files
from publisher.contract.errors import ManifestError
from publisher.contract.manifest import CLOCK_ERROR, HARD_LIMIT
from publisher.resolver.errors import OldManifestError, UnknownImageError
from publisher.resolver.select import facts
from publisher.resolver.trust import manifest_loader
from publisher.resolver.trust.manifest_cache import ManifestCache
from publisher.resolver.trust.poll_schedule import PollSchedule
from tests.support.checkout import ROOT
from tests.support.ep.execution_point import NOW, REPOSITORY, ExecutionPoint, record, sif_content, version
from tests.support.machine import child_process
from tests.support.osdf.faulty_cache import FaultyServer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("own_reads")

NAME = "htc/rocky:9"
EVERY = 900.0
LATEST = 1.25 * EVERY


class Published:
    """An origin on a server, and hosts without CVMFS that read it."""

    def __init__(self, ep: ExecutionPoint, server: FaultyServer) -> None:
        self.ep = ep
        self.server = server
        self.content = sif_content(NAME)

    def publish(self, *names: str, serial: int, now: int = NOW) -> None:
        self.ep.publish(*(record(name) for name in names), serial=serial, now=now)
        for name in names:
            self.ep.store(sif_content(name))
        files = (path for path in self.ep.origin.rglob("*") if path.is_file())
        self.server.objects = {f"/{path.relative_to(self.ep.origin)}": path.read_bytes() for path in files}

    def resolve(self, name: str = NAME, now: float = NOW) -> manifest_loader.TrustedManifest:
        answer = self.ep.resolve(name, now=now, repository=None, repository_name=REPOSITORY, origin=[self.server.url])
        return answer.manifest

    def asked(self) -> list[str]:
        """Names of what was asked for since the last time."""
        paths = [Path(asked.path) for asked in self.server.asked]
        self.server.asked.clear()
        return [path.name if path.name == "index.json" else path.parent.name for path in paths]


@pytest.fixture
def published(ep: ExecutionPoint) -> Iterator[Published]:
    with FaultyServer({}) as server:
        it = Published(ep, server)
        it.publish(NAME, serial=1)
        yield it


def test_a_second_answer_polls_nobody_until_a_poll_is_due(published: Published) -> None:
    first = published.resolve()
    assert (first.source, first.polled, first.is_current) == (f"{published.server.url}/manifest", True, True)
    assert published.asked()[:2] == ["index.json", "shards"]
    second = published.resolve(now=NOW + 0.74 * EVERY)
    assert (second.source, second.polled, second.is_current) == (manifest_loader.CACHED_COPY, False, True)
    assert published.asked() == []
    assert published.ep.notes.warnings == []
    published.resolve(now=NOW + LATEST + 1)
    assert published.asked() == ["index.json"]


def test_a_block_takes_effect_at_the_next_poll(published: Published) -> None:
    published.resolve()
    published.publish(serial=2)
    published.resolve(now=NOW + 1)
    with pytest.raises(UnknownImageError):
        published.resolve(now=NOW + LATEST + 1)


def test_an_image_missing_from_the_cached_copy_causes_a_poll_at_most_once_a_minute(published: Published) -> None:
    published.resolve()
    published.publish(NAME, "new:1", serial=2)
    assert published.resolve("new:1", now=NOW + 76).index.serial == 2
    published.asked()
    for _ in range(3):
        with pytest.raises(UnknownImageError):
            published.resolve("typing:error", now=NOW + 80)
    assert published.asked().count("index.json") == 0


def asked_ever_less(published: Published, now: float, age: str) -> float:
    """Jobs come every ten seconds, and see the manifest of this age; the time when this was long enough."""
    times = list[float]()
    while len(times) < 6:
        published.asked()
        found = published.resolve(now=now)
        assert (found.age, found.index.serial) == (age, 1)
        if published.asked():
            times.append(now)
        now += 10
    for number, (before, after) in enumerate(zip(times, times[1:])):
        assert 0.75 * min(EVERY, 20 * 2**number) <= after - before <= 1.25 * min(EVERY, 20 * 2**number) + 10
    return now


@pytest.mark.untraced
def test_a_server_that_is_gone_is_polled_less_and_less_often(published: Published) -> None:
    published.resolve()
    published.server.always = "500"
    now = asked_ever_less(published, NOW + LATEST + 1, "fresh")
    published.server.always = ""
    published.resolve(now=now + LATEST)
    published.asked()
    published.resolve(now=now + LATEST + 0.7 * EVERY)
    assert published.asked() == []


def test_an_unknown_image_during_a_network_outage_is_an_error_of_the_network(published: Published) -> None:
    with pytest.raises(UnknownImageError):
        published.resolve("new:1")
    published.server.always = "500"
    with pytest.raises(ManifestError, match="no newer manifest can be fetched"):
        published.resolve("new:1", now=NOW + LATEST + 1)


def test_a_host_without_a_cached_copy_polls_again_after_seconds(published: Published) -> None:
    published.server.always = "500"
    for _ in range(5):
        with pytest.raises(ManifestError, match="status 500"):
            published.resolve()
        with pytest.raises(ManifestError, match="was polled a short while ago"):
            published.resolve(now=NOW + 10)
        (published.ep.cache / "manifest" / REPOSITORY / "asked").unlink()
    published.asked()
    for times in range(6):
        with pytest.raises(ManifestError):
            published.resolve(now=NOW + 1000 * times)
        with pytest.raises(ManifestError):
            published.resolve(now=NOW + 1000 * times + 26)
    assert published.asked() == ["index.json"] * 12


@pytest.mark.untraced
def test_a_server_with_an_expired_manifest_is_polled_less_and_less_often(published: Published) -> None:
    published.resolve()
    now = asked_ever_less(published, NOW + 20 * 86400, "expired")
    published.publish(NAME, serial=2, now=int(now))
    assert published.resolve(now=now + LATEST).age == "fresh"
    published.asked()
    published.resolve(now=now + LATEST + 0.7 * EVERY)
    assert published.asked() == []


def test_a_dead_cached_copy_causes_a_poll_after_seconds(published: Published) -> None:
    published.resolve()
    dead = NOW + HARD_LIMIT + CLOCK_ERROR + 1
    published.asked()
    for now in (dead, dead + 26, dead + 52, dead + 78):
        with pytest.raises(ManifestError, match="too old"):
            published.resolve(now=now)
    assert published.asked() == ["index.json"] * 4


def test_a_job_with_a_cached_copy_does_not_wait_for_the_polling_process(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.resolve()
    published.asked()
    kept = ManifestCache(str(published.ep.cache / "manifest" / REPOSITORY))
    with files.locked(PollSchedule(kept.directory, EVERY, NOW).lock, 0):
        monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
        assert published.resolve(now=NOW + LATEST + 1).source == manifest_loader.CACHED_COPY
    assert published.asked() == []


def test_a_job_whose_image_is_missing_waits_for_the_polling_process(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.resolve()
    published.asked()
    lately = PollSchedule(str(published.ep.cache / "manifest" / REPOSITORY), EVERY, NOW + LATEST)
    with files.locked(lately.lock, 0):
        monkeypatch.setattr(time, "sleep", lambda _: lately.record_poll(answered=True))
        with pytest.raises(UnknownImageError):
            published.resolve("typing:error", now=NOW + LATEST + 1)
    assert "index.json" not in published.asked()


def test_an_old_answer_does_not_count_while_the_polling_process_hangs(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.resolve()
    clock = [time.monotonic()]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    with files.locked(str(published.ep.cache / "manifest" / REPOSITORY / "asking-index"), 0):
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        monkeypatch.setattr(time, "sleep", sleep)
        with pytest.raises(OldManifestError, match="no newer manifest can be fetched"):
            published.resolve("new:1", now=NOW + 7200)


def without_shards(published: Published) -> str:
    """A cache that has the index alone; the sha256 of the shard that the next one asks for."""
    published.resolve()
    cached = published.ep.cache / "manifest" / REPOSITORY
    shards = list((cached / "shards").iterdir())
    for path in (*shards, *(cached / "records").iterdir()):
        path.unlink()
    published.asked()
    return shards[0].stem


def test_a_shard_that_cannot_be_fetched_is_not_retried_at_once(published: Published) -> None:
    memory = published.ep.cache / "failures" / f"shard-{without_shards(published)}"
    published.server.always = "500"
    for said in ("cannot fetch a shard of the manifest", "not retried yet: cannot fetch a shard of the manifest"):
        with pytest.raises(ManifestError, match=said):
            published.resolve()
    assert published.asked() == ["shards"]
    published.server.always = ""
    memory.write_text(f"1 {time.time() - 1} its time is over")
    published.resolve()
    assert published.asked() == ["shards"]
    assert not memory.exists()


def test_one_of_many_jobs_tries_to_fetch_a_missing_shard(published: Published) -> None:
    without_shards(published)
    published.server.always, published.server.held = "500", "/manifest/shards"

    def one() -> None:
        with pytest.raises(ManifestError, match="cannot fetch a shard of the manifest"):
            published.resolve()

    jobs = [child_process.start(one) for _ in range(8)]
    published.server.released.set()
    assert [child_process.end(job) for job in jobs] == [0] * 8
    assert published.asked() == ["shards"]


def test_a_shard_that_another_process_fetches_for_too_long_is_not_fetched_as_well(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = without_shards(published)
    clock = [time.monotonic()]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    with files.locked(ManifestCache(str(published.ep.cache / "manifest" / REPOSITORY)).lock(f"shard-{sha256[:2]}"), 0):
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        monkeypatch.setattr(time, "sleep", sleep)
        with pytest.raises(ManifestError, match="another process has been fetching a shard of the manifest for too long"):
            published.resolve()
    assert published.asked() == []


def test_a_damaged_shard_is_fetched_once(published: Published) -> None:
    sha256 = without_shards(published)
    (published.ep.cache / "manifest" / REPOSITORY / "shards" / f"{sha256}.json").write_bytes(b"{}")
    published.resolve()
    published.resolve()
    assert published.asked() == ["shards"]


def test_a_clock_that_was_set_back_makes_a_poll_due(published: Published) -> None:
    published.resolve()
    published.asked()
    published.resolve(now=NOW - 86400)
    assert published.asked() == ["index.json"]


@pytest.mark.parametrize("content", ["", "now and then", "1 2", "nan 0 1", "1 0 inf"])
def test_an_unreadable_schedule_makes_a_poll_due(tmp_path: Path, content: str) -> None:
    (tmp_path / "asked").write_text(content)
    assert PollSchedule(str(tmp_path), EVERY, NOW).is_due(usable=True)


def test_hosts_that_started_together_spread_out(tmp_path: Path) -> None:
    """A quarter to either side: of 200 hosts some come early, some late, and none at another time."""
    early = late = 0
    for number in range(200):
        directory = tmp_path / str(number)
        directory.mkdir()
        PollSchedule(str(directory), EVERY, NOW).record_poll(answered=True)
        assert not PollSchedule(str(directory), EVERY, NOW + 0.749 * EVERY).is_due(usable=True)
        assert PollSchedule(str(directory), EVERY, NOW + LATEST).is_due(usable=True)
        early += PollSchedule(str(directory), EVERY, NOW + 0.85 * EVERY).is_due(usable=True)
        late += not PollSchedule(str(directory), EVERY, NOW + 1.15 * EVERY).is_due(usable=True)
    assert early > 10
    assert late > 10


def test_the_repository_is_asked_each_time_and_the_network_is_not(published: Published) -> None:
    ep = published.ep
    (ep.repository / str(version(NAME).sandbox)).mkdir(parents=True, exist_ok=True)
    ep.resolve(NAME, origin=[published.server.url])
    published.asked()
    ep.publish(record(NAME), serial=5)
    answer = ep.resolve(NAME, origin=[published.server.url])
    assert (answer.manifest.index.serial, answer.manifest.source) == (5, f"{ep.repository}/.publisher")
    facts.write(str(ep.cache / "facts.json"), {"cvmfs": False}, NOW)
    ep.publish(record(NAME), serial=6)
    assert ep.resolve(NAME, origin=[published.server.url], form="sandbox").manifest.index.serial == 5
    assert published.asked() == []


def test_a_mirror_serves_when_the_origin_does_not(published: Published) -> None:
    with FaultyServer({}) as origin:
        answer = published.ep.resolve(
            NAME, repository=None, repository_name=REPOSITORY, origin=[origin.url], mirror=[published.server.url]
        )
    assert answer.manifest.source == f"{published.server.url}/manifest"
    assert answer.sif_source == published.server.url


def test_an_unwritable_cache_does_not_prevent_a_poll(published: Published) -> None:
    (published.ep.cache / "manifest").mkdir(parents=True)
    published.ep.cache.chmod(0o700)
    (published.ep.cache / "manifest" / REPOSITORY).write_text("a file where the directory should be")
    assert published.resolve().index.serial == 1


def test_a_job_polls_once_if_the_poll_cannot_be_recorded(published: Published) -> None:
    """A full disk, say: the lock is made, and nothing is written."""
    (published.ep.cache / "manifest" / REPOSITORY / "asked").mkdir(parents=True)
    published.ep.cache.chmod(0o700)
    for _ in range(2):
        found = published.resolve()
        assert (found.source, found.polled, found.is_current) == (f"{published.server.url}/manifest", True, True)
        assert published.asked().count("index.json") == 1
    published.server.always = "500"
    assert published.resolve().source == manifest_loader.CACHED_COPY
    assert any("cannot record the poll" in line for line in published.ep.notes.all)


PROGRAM = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from publisher.resolver.cli import main
status = main()
print(*sys.modules, file=sys.stderr)
sys.exit(status)
"""


def command(published: Published, *more: str) -> list[str]:
    ep = published.ep
    places = ["--repository-name", REPOSITORY, "--origin", published.server.url, "--cache", str(ep.cache)]
    keys = ["--public-key", str(ep.keys), "--arch", "amd64"]
    return [sys.executable, "-I", "-S", "-c", PROGRAM, str(ROOT), "resolve", NAME, *places, *keys, *more]


def test_a_warm_answer_uses_no_network_and_imports_nothing_for_it(published: Published) -> None:
    published.ep.publish(record(NAME), now=int(time.time()))
    published.publish(NAME, serial=1)
    published.ep.publish(record(NAME), now=int(time.time()))
    files = (path for path in published.ep.origin.rglob("*") if path.is_file())
    published.server.objects = {f"/{path.relative_to(published.ep.origin)}": path.read_bytes() for path in files}
    subprocess.run(command(published), check=True, capture_output=True)
    published.asked()
    warm = subprocess.run(command(published), check=True, capture_output=True, text=True)
    assert published.asked() == []
    loaded = set(warm.stderr.split())
    assert "publisher.resolver.trust.poll_schedule" in loaded
    assert not loaded & {"socket", "ssl", "http.client", "urllib", "threading", "fcntl", "contextlib", "subprocess"}
    assert not {f"publisher.resolver.{name}" for name in ("fetch", "web", "connection", "director", "federation")} & loaded
