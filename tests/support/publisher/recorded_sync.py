"""A run of :class:`publisher.publish.sync.Sync` with a registry, a builder and a repository that only record their calls."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.build.builder import Builder, BuildRequest, UncheckedSif
from publisher.build.sandbox.patch_clone import ClonePatch
from publisher.errors import PublisherError, SpaceError
from publisher.oci import Descriptor, Image, ImageConfig, ImageManifest
from publisher.plan.backoff import hold_back
from publisher.plan.make import make_plan
from publisher.publish.batch import BatchLimits
from publisher.publish.publication import PublishResult
from publisher.publish.staged import StagedClone, StagedEntry
from publisher.publish.sync import Sync
from publisher.state.snapshot import Snapshot
from publisher.system.progress import READ_BACK, Display
from tests.support.publisher.built_values import answer, built, carried_out, digest, entry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from publisher.contract.records import Record
    from publisher.images.reader import Entry
    from publisher.plan.model import PlanItem, ResolvedReference
    from publisher.publish.pipeline.pipeline import Finished, Squashed
    from publisher.publish.report import RunReport
    from publisher.state.built import BuiltImage
    from publisher.state.outcomes import Outcomes

EMPTY = Snapshot("images.example.org")


class Quiet(Display):
    """A display that records lines and outcomes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, what: str, total: int) -> None: ...

    def advance(self) -> None: ...

    def step(self, image: str, step: str, done: int, total: int) -> None: ...

    def finish(self, image: str, outcome: str) -> None:
        self.lines.append(f"{image}: {outcome}")

    def say(self, line: str) -> None:
        self.lines.append(line)


def request_of(item: PlanItem) -> list[BuildRequest]:
    config = Descriptor("", digest("config"), 1)
    return [
        BuildRequest(
            item.entry.name,
            Image(ImageManifest(target.digest, "", config, ()), ImageConfig(target.platform, (), b"{}")),
            (),
            (),
        )
        for target in item.targets
        if target.published is None
    ]


class Intake:
    """An intake that records which images were fetched.

    Args:
        failures: name -> why it cannot be fetched.
        later: gets the name of an image, and a function to call when it has arrived; None where it arrives at once.
    """

    def __init__(
        self, failures: dict[str, PublisherError], later: Callable[[str, Callable[[], None]], None] | None = None
    ) -> None:
        self.failures = failures
        self.later = later or (lambda _, arrive: arrive())
        self.asked: list[str] = []
        self.known_sizes: dict[str, int] = {}

    def sizes(self, items: Sequence[PlanItem]) -> dict[str, int]:
        return {item.entry.name: self.known_sizes.get(item.entry.name, 0) for item in items}

    def fetch(self, item: PlanItem, *, layers: bool = True) -> Future[list[BuildRequest]]:
        name = item.entry.name
        self.asked.append(name)
        self.with_layers = layers
        future: Future[list[BuildRequest]] = Future()

        def arrive() -> None:
            if not future.set_running_or_notify_cancel():
                return
            if name in self.failures:
                future.set_exception(self.failures[name])
            else:
                future.set_result(request_of(item))

        self.later(name, arrive)
        return future


class Job:
    """Work in a thread of its own, of which one runs at a time: :meth:`step` lets it run until it sleeps or ends."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.work = work
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.go.acquire()
        self.work()
        self.back.release()

    def step(self) -> None:
        self.go.release()
        self.back.acquire()

    def sleep(self) -> None:
        self.back.release()
        self.go.acquire()


class SimulatedWorkers:
    """Workers in simulated time: what happens is done in the order of its time, one thing after the other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.order = itertools.count()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.news: list[Finished | Squashed] = []
        self.job: Job | None = None

    def submit(self, work: Callable[[], None]) -> None:
        self.at(self.world.now, partial(self._step, Job(work)))

    def at(self, time: float, do: Callable[[], None]) -> None:
        self.events.append((time, next(self.order), do))

    def _step(self, job: Job) -> None:
        self.job = job
        job.step()

    def sleep(self, seconds: float) -> None:
        """Let other things happen for some time; called by work."""
        job = self.job
        assert job is not None
        self.at(self.world.now + seconds, partial(self._step, job))
        job.sleep()

    def tell(self, news: Finished | Squashed) -> None:
        self.news.append(news)

    def wait(self, timeout: float | None) -> Finished | Squashed | None:
        until = self.world.now + (float("inf") if timeout is None else timeout)
        while not self.news:
            following = min(self.events, default=(float("inf"), 0, None))
            if following[0] > until:
                self.world.now = until
                return None
            assert following[2] is not None, "the run waits for ever"
            self._happen()
        return self.news.pop(0)

    def join(self) -> None:
        while self.events:
            self._happen()

    def _happen(self) -> None:
        following = min(self.events)
        self.events.remove(following)
        self.world.now = max(self.world.now, following[0])
        following[2]()


class Building(Builder):
    """A builder that makes no files; it calls ``before`` with the name of an image, and ``while_checked`` when it is squashed."""

    def __init__(
        self,
        failures: dict[str, PublisherError],
        before: Callable[[str], None],
        while_checked: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.failures = failures
        self.before = before
        self.while_checked = while_checked
        self.made: set[str] = set()
        self.hidden: set[str] = set()  # of whose SIFs it does not know
        self.kept: list[str] = []
        self.gone: set[str] = set()
        self.stopped = False
        self.swept: set[str] | None = None

    def stop(self) -> None:
        self.stopped = True

    def build(self, request: BuildRequest, progress: Callable[[str, int, int], None]) -> BuiltImage:
        progress("squash", 1, 1)
        self.before(request.name)
        self.made.add(request.name)
        progress(READ_BACK, 0, 1)
        self.while_checked(request.name)
        if request.name in self.failures:
            raise self.failures[request.name]
        self.kept.append(request.name)
        self.gone.discard(request.image.manifest.digest)
        return built(request.image.manifest.digest)

    def unchecked(self, request: BuildRequest) -> UncheckedSif | None:
        return UncheckedSif(Path(request.name), 1, (0, 0, 0)) if request.name in self.made - self.hidden else None

    def discard(self, request: BuildRequest) -> None:
        self.kept.remove(request.name)
        self.gone.add(request.image.manifest.digest)

    def sweep(self, wanted: Collection[str], unknown: Collection[str] = ()) -> None:
        self.swept, self.unknown = set(wanted), set(unknown)


class Publication:
    """A publication that records the names in each transaction, and fails as its attributes say."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self.early: list[str] = []  # of whose SIFs a sandbox was unpacked early
        self.open_early: str | None = None
        self.times: list[float] = []
        self.clock: Callable[[], float] = lambda: 0.0
        self.stored: list[str] = []
        self.left: list[str] = []
        self.cloned: set[str] = set()
        self.kept = 65_000
        self.clones: list[str] = []
        self.busy: PublisherError | None = None
        self.refuse: PublisherError | None = None
        self.refuse_sif: PublisherError | None = None
        self.left_out: dict[str, PublisherError] = {}
        self.behind: PublisherError | None = None
        self.why: str | None = None
        self.room: float = float("inf")
        self.gone: set[str] = set()

    def require_idle(self) -> None:
        if self.busy is not None:
            raise self.busy

    def earlier_sif(self, snapshot: Snapshot, item: PlanItem, digest: str) -> None:
        """Return no SIF of an earlier version."""

    def store_sif(self, build: BuiltImage) -> None:
        if self.refuse_sif is not None:
            raise self.refuse_sif
        self.stored.append(build.sha256)

    def stage(self, snapshot: Snapshot, item: PlanItem, builds: Mapping[str, BuiltImage]) -> StagedEntry:
        assert isinstance(snapshot, Snapshot)
        clone = (
            StagedClone("before", item.entry.name, ClonePatch((), (), (), self.kept)) if item.entry.name in self.cloned else None
        )
        return StagedEntry(item, builds, clone)

    def unpack_early(self, snapshot: Snapshot, item: PlanItem, sif: UncheckedSif) -> None:
        assert isinstance(snapshot, Snapshot)
        assert item.entry.name == str(sif.path)
        self.early.append(item.entry.name)
        self.open_early = item.entry.name

    def discard_early(self) -> None:
        self.open_early = None

    def due(self, snapshot: Snapshot) -> str | None:
        return self.why if snapshot.serial == 0 else None

    def publish(self, snapshot: Snapshot, entries: Sequence[StagedEntry], leaving: Sequence[str] = ()) -> PublishResult:
        if self.refuse is not None:
            raise self.refuse
        assert not self.gone.intersection(digest for entry in entries for digest in entry.builds)
        if sum(entry.unpacked_size for entry in entries) > self.room:
            raise SpaceError("no space for a sandbox", hint="free space there and run again")
        self.room -= sum(entry.unpacked_size for entry in entries)
        self.left += leaving
        names = [entry.name for entry in entries]
        self.open_early = None
        self.transactions.append(names)
        self.outcomes = snapshot.outcomes
        self.clones += [entry.name for entry in entries if entry.clone is not None]
        self.times.append(self.clock())
        failed = {name: error for name, error in self.left_out.items() if name in names}
        return PublishResult(Snapshot(snapshot.repository, snapshot.serial + 1), failed, self.behind)


class World:
    """A run, and the failures that happen in it."""

    def __init__(self) -> None:
        self.fetching: dict[str, PublisherError] = {}
        self.arrivals: dict[str, float] = {}
        self.building: dict[str, PublisherError] = {}
        self.answers: dict[str, ResolvedReference | PublisherError] = {}
        self.now = 0.0
        self.parallel = 1
        self.sizes: dict[str, int] = {}
        self.free = 10**12
        self.before: Callable[[str], None] = lambda _: None
        self.while_checked: Callable[[str], None] = lambda _: None
        self.publication = Publication()
        self.publication.clock = lambda: self.now
        self.limits = BatchLimits()

    def run(
        self,
        *entries: Entry,
        snapshot: Snapshot = EMPTY,
        allow_mass_removal: bool = False,
        whole: bool = True,
        outcomes: Outcomes | None = None,
        now: int = 0,
    ) -> RunReport:
        answers = {one.name: self.answers.get(one.name, answer(one.name)) for one in entries}
        plan = make_plan(entries, answers, snapshot, whole=whole, allow_mass_removal=allow_mass_removal)
        plan = hold_back(plan, snapshot.outcomes if outcomes is None else outcomes, now)
        workers = self.workers = SimulatedWorkers(self)
        self.intake = Intake(self.fetching, lambda name, arrive: workers.at(self.arrivals.get(name, 0.0), arrive))
        self.intake.known_sizes = self.sizes
        self.builder = Building(self.building, self.before, self.while_checked)
        self.builder.parallel = self.parallel
        self.publication.gone = self.builder.gone
        self.display = Quiet()
        sync = Sync(
            self.intake,  # type: ignore[arg-type]  # the methods that Sync uses
            self.builder,
            self.publication,  # type: ignore[arg-type]
            self.display,
            limits=self.limits,
            free=lambda: self.free,
            workers=lambda _: workers,
            clock=lambda: self.now,
            now=lambda: now,
            outcomes=outcomes,
        )
        report = sync.run(plan, snapshot)
        self.outcomes = sync.outcomes
        return report

    def sleep(self, seconds: float) -> None:
        """Let a build last some time; ``before`` may call it."""
        self.workers.sleep(seconds)

    def record(self, name: str) -> Record:
        """Return the record of an image as if it were published."""
        return carried_out(make_plan([entry(name)], {name: answer(name)}, EMPTY), EMPTY, 1).records[name]
