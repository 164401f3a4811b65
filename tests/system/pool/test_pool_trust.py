"""What jobs get where trust is in question: docs/design.md, section 4, in a real pool.

No test leaves a lower serial than it found: whoever has kept a copy of the manifest would refuse that.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from publisher.contract import manifest
from publisher.contract.manifest import HARD_LIMIT, LIFETIME
from publisher.resolver.hook import statuses
from publisher.state.signing import Signer
from tests.support.ep.pool import ANSWERED, EVICTED, HELD, IDLE
from tests.support.ep.pool_site import REPOSITORY, SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ep.pool import Jobs
    from tests.support.ep.pool_site import Site

pytestmark = pytest.mark.system

PATH = f"/cvmfs/{REPOSITORY}/{SMALL}"
NONE = f"/cvmfs/{REPOSITORY}/htc/none:1"
MOVED, TAKEN = "htc/moved:1", "htc/taken:1"
HOUR, DAY = 3600, 86400
_AT_ITS_CLOCK = """\
#!/bin/sh
# the hook on a host whose clock is as wrong as the job says
ad=$(cat)
clock=$(printf '%s\\n' "$ad" | sed -n 's/^HostClock = "\\(.*\\)"$/\\1/p')
printf '%s\\n' "$ad" | faketime -f "$clock" {program} "$@"
"""


class Trust:
    """The pool's site, where each job asks all places, each decision is traced, and no failure waits."""

    def __init__(self, site: Site, refused: list[tuple[Jobs, int]]) -> None:
        self.site = site
        self._refused = refused
        self.host = site.host
        self.trace = site.caches / "trace"
        self.indexes = [self.host.repository / ".publisher" / manifest.INDEX_NAME, self.host.origin / "manifest/index.json"]

    def submit(self, image: str, **more: str) -> Jobs:
        return self.site.submit({"+SingularityImage": f'"{image}"', **{f"+{name}": f'"{text}"' for name, text in more.items()}})

    def answer(self, jobs: Jobs, code: int = statuses.OK) -> str:
        """What the hook said, which the user reads in his job's log; the status is the one that is expected."""
        (said,) = jobs.wait(ANSWERED)
        assert f"reported status {code:03}" in said
        if code:
            self._refused.append((jobs, code))
        return said

    def decision(self, jobs: Jobs) -> dict[str, Any]:
        """The trace's line of a job."""
        lines = map(json.loads, self.trace.read_text().splitlines())
        return next(line for line in lines if line["job"] == f"{jobs.cluster}.0")

    def sandbox(self, name: str) -> str:
        version = self.host.record(name).current("amd64")
        assert version is not None
        return f"{self.site.repository}/{version.sandbox}"

    @property
    def published(self) -> manifest.Index:
        index = self.host.index()
        assert index is not None
        return index

    def signed(self, generated: float, expires: float | None = None, ahead: int = 0) -> bytes:
        """What is published now, signed by the publisher's key with dates in seconds from now, and a serial so far ahead."""
        expires = generated + LIFETIME if expires is None else expires
        index, now = self.published, time.time()
        index.generated, index.expires, index.serial = int(now + generated), int(now + expires), index.serial + ahead
        return manifest.seal(index.payload(), Signer(self.host.key).sign(index.payload()))

    @contextlib.contextmanager
    def index(self, content: bytes, *places: Path) -> Iterator[None]:
        """Places, by default both, have this index, and no cache has another one."""
        before = {path: path.read_bytes() for path in places or self.indexes}
        self.site.empty_cache()
        for path in before:
            path.write_bytes(content)
        try:
            yield
        finally:
            for path, was in before.items():
                path.write_bytes(was)

    def only(self, key: Path) -> None:
        """The execution point trusts this key alone."""
        for path in self.site.keys.iterdir():
            path.unlink()
        shutil.copy(f"{key}.pub", self.site.keys)


@pytest.fixture(scope="module")
def refused() -> Iterator[list[tuple[Jobs, int]]]:
    """Jobs that got no image, and the status: what becomes of them takes HTCondor seconds, so it is looked at in the end."""
    found: list[tuple[Jobs, int]] = []
    yield found
    for jobs, code in found:
        held = code < statuses.FIRST_HOST_STATUS
        jobs.wait(HELD if held else EVICTED)
        assert (jobs.ad()["JobStatus"] == IDLE, jobs.count(HELD)) == (not held, held), jobs.told()
        assert jobs.output_so_far() == ""
        jobs.remove()


@pytest.fixture
def trust(site: Site, refused: list[tuple[Jobs, int]]) -> Iterator[Trust]:
    made = Trust(site, refused)
    site.empty_cache()
    site.configure(refresh="0 s", backoff="0 s", trace=str(made.trace))
    yield made
    site.configure()
    site.empty_cache()
    made.trace.unlink(missing_ok=True)


def ran_in(jobs: Jobs) -> tuple[str, str]:
    """What a job found in its image, and where that is."""
    motd, environment, *_ = jobs.done().output().splitlines()
    assert environment.startswith("hello ")
    return motd, environment.partition(" ")[2]


def test_a_clock_an_hour_off_changes_nothing(trust: Trust) -> None:
    hook = trust.site.pool.root / "hook"
    hook.write_text(_AT_ITS_CLOCK.format(program=trust.site.program))
    hook.chmod(0o755)
    made_now = trust.signed(0, expires=HOUR / 2)  # ahead: it has expired; behind: it is made in an hour
    nearly_dead = trust.signed(HOUR / 2 - HARD_LIMIT)
    with trust.site.overridden(f"IMAGE_RESOLVER_HOOK_PREPARE_JOB = {hook}\n"):
        with trust.index(made_now):
            ahead, behind = ([trust.submit(image, HostClock=clock) for image in (PATH, NONE)] for clock in ("+1h", "-1h"))
            sifs = [trust.submit(PATH, HostClock=clock, WantImageForm="sif") for clock in ("+1h", "-1h")]
            for (there, not_there), off in ((ahead, HOUR), (behind, -HOUR)):
                assert ran_in(there) == (SMALL, trust.sandbox(SMALL))
                assert trust.decision(there)["time"] == pytest.approx(time.time() + off, abs=HOUR / 6)
                assert "expired" not in trust.answer(there)
                trust.answer(not_there, statuses.NO_IMAGE)  # it is the user who is wrong, not the clock
            assert [ran_in(jobs) for jobs in sifs] == [(SMALL, str(trust.site.sif(SMALL)))] * 2
        with trust.index(nearly_dead):
            by_name = trust.submit(SMALL, HostClock="+1h")
            assert ran_in(by_name) == (SMALL, trust.sandbox(SMALL))
            assert "expired" in trust.answer(by_name)


@contextlib.contextmanager
def listed_too(trust: Trust, *names: str) -> Iterator[None]:
    """The list has further images for a time."""
    before = trust.host.list.read_text()
    document = json.loads(before)
    document["groups"][0]["images"] += [{"image": f"{trust.host.registry.address}/{name}"} for name in names]
    trust.host.list.write_text(json.dumps(document))
    trust.host.sync()
    try:
        yield
    finally:
        trust.host.list.write_text(before)
        trust.host.sync("--allow-mass-removal")


def test_a_stratum_1_two_serials_behind_brings_nothing_back(trust: Trust) -> None:
    host, site, lagging = trust.host, trust.site, trust.host.where / "lagging"
    site.push(MOVED, "old")
    site.push(TAKEN)
    with listed_too(trust, MOVED, TAKEN):
        behind = trust.published.serial
        shutil.copytree(host.repository, lagging, symlinks=True)
        site.push(MOVED, "new")
        host.sync()
        host.run("block", TAKEN, "--reason=it steals tokens", check=True)
        assert trust.published.serial > behind
        names = [f"/cvmfs/{REPOSITORY}/{name}" for name in (MOVED, SMALL, TAKEN)]
        with site.lagging_cvmfs(lagging):
            for origin in (host.origin, host.origin.with_name("away")):  # the second time the highest serial is only remembered
                host.origin.rename(origin)
                try:
                    moved, unchanged, taken = (trust.submit(name) for name in names)
                    assert ran_in(moved) == ("new", str(site.sif(MOVED)))
                    assert ran_in(unchanged) == (SMALL, trust.sandbox(SMALL))
                    assert "it steals tokens" in trust.answer(taken, statuses.BLOCKED)
                    assert [trust.decision(jobs)["serial"] for jobs in (moved, unchanged)] == [trust.published.serial] * 2
                finally:
                    origin.rename(host.origin)
    shutil.rmtree(lagging)


def test_an_expired_index_serves_what_it_knows_and_says_so(trust: Trust) -> None:
    expired = trust.signed(-LIFETIME - DAY)
    dead = trust.signed(-HARD_LIMIT - DAY)
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - DAY))
    with trust.index(expired):
        there, not_there = trust.submit(SMALL), trust.submit(NONE)
        assert ran_in(there) == (SMALL, trust.sandbox(SMALL))
        assert f"expired on {day}, and there is no fresher one" in trust.answer(there)
        trust.answer(not_there, statuses.MANIFEST)  # nobody can say that it is the user who is wrong
    with trust.index(dead):
        path, others = trust.submit(PATH), [trust.submit(SMALL), trust.submit(PATH, WantImageForm="sif")]
        assert Path(ran_in(path)[1]).name == Path(trust.sandbox(SMALL)).name
        assert trust.decision(path)["digest"] is None, "no word of such a manifest counts"
        for jobs in others:
            assert "too old" in trust.answer(jobs, statuses.MANIFEST)


def test_where_a_fresher_index_is_to_be_had_an_expired_one_counts_for_nothing(trust: Trust) -> None:
    expired, before = trust.signed(-LIFETIME - DAY), trust.published.serial
    for path in trust.indexes:
        path.write_bytes(expired)
    trust.host.sync()
    fresher = trust.published.serial
    assert fresher > before, "past half its life it is signed anew"
    with trust.index(expired, trust.indexes[0]):
        jobs = trust.submit(SMALL)
        assert ran_in(jobs) == (SMALL, trust.sandbox(SMALL))
        assert trust.decision(jobs)["serial"] == fresher
        assert "expired" not in trust.answer(jobs)


def test_what_a_revoked_key_signed_counts_for_nothing(trust: Trust) -> None:
    host, account = trust.host, trust.site.pool.account
    trust.site.run("resolve", SMALL, user=account)  # the cache has a copy that the key has signed, and was found right
    thiefs = trust.signed(0, ahead=1000)
    stolen, host.key = host.key, host.where / "new.pem"
    try:
        host.run("keys", "new", check=True)
        trust.only(host.key)
        assert "no such key is trusted here" in trust.answer(trust.submit(PATH), statuses.MANIFEST)
        host.sync(f"--trusted-keys={stolen}.pub")
        with trust.index(thiefs, trust.indexes[1]):
            jobs = trust.submit(PATH)
            assert ran_in(jobs) == (SMALL, trust.sandbox(SMALL))
            assert trust.decision(jobs)["serial"] == trust.published.serial
    finally:
        trust.only(stolen)
        new, host.key = host.key, stolen
        host.sync(f"--trusted-keys={new}.pub")
