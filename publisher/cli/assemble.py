"""The parts of a run, put together from the settings."""

from __future__ import annotations

import contextlib
import os
import time
import urllib.request
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.build.local import LocalBuilder
from publisher.build.squash import squasher
from publisher.build.testrun import TestRunner
from publisher.contract import files
from publisher.errors import PublisherError, SpaceError, UsageError
from publisher.images import reader
from publisher.images.list_diff import ListDiff, since
from publisher.maintain import gc
from publisher.maintain.adoption.throttle import BatchQuota, paced
from publisher.net.retry import RetryPolicy
from publisher.plan import lint, quota
from publisher.plan.make import make_plan
from publisher.plan.model import Plan, UnlistedPattern
from publisher.plan.retention import RetentionLimits
from publisher.publish.intake import Intake
from publisher.publish.publication import Publication
from publisher.publish.sync import BatchLimits, Sync
from publisher.registry.blobs.store import BlobStore
from publisher.registry.client import RegistryClient
from publisher.registry.credentials import anonymous, docker_credentials
from publisher.registry.transport import RegistryTimeouts
from publisher.settings.targets import CvmfsTarget
from publisher.state import signing
from publisher.state.paths import REPOSITORY_MANIFEST, image_directories
from publisher.state.snapshot import Snapshot, load
from publisher.system.durable import delete, failures
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.origins.pelican import PelicanOrigin, UploadOptions
from publisher.targets.pelican import transport
from publisher.targets.pelican.address import OriginAddress
from publisher.targets.pelican.cli_upload import PROGRAM
from publisher.targets.pelican.jwt import MintedTokens, TokenClaims
from publisher.targets.pelican.tokens import EnvironmentTokens, FileTokens
from publisher.targets.repositories.cvmfs.repository import CvmfsRepository
from publisher.targets.repositories.directory import DirectoryRepository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from publisher.contract.records import Record
    from publisher.images.reader import Entry, ImageList
    from publisher.maintain.gc import GcResult
    from publisher.plan.lint import CheckedEntry
    from publisher.publish.report import RunReport
    from publisher.registry.credentials import Credentials
    from publisher.settings.settings import PublisherSettings
    from publisher.system.progress import Display
    from publisher.targets.origins.base import Origin
    from publisher.targets.pelican.tokens import TokenSource
    from publisher.targets.repositories.base import Repository

    LookUp = Callable[[str], Credentials | None]


_SAMPLE = 3  # images of a wildcard that are looked at


@dataclass(frozen=True)
class RunOptions:
    """What the operator says for one run.

    Attributes:
        names: the images that are meant, all where none is named.
        rebind: published names that may come from another repository from now on.
        allow_mass_removal: more names than usual may leave.
    """

    names: tuple[str, ...] = ()
    rebind: tuple[str, ...] = ()
    allow_mass_removal: bool = False


class StateDirectoryError(PublisherError):
    """The state directory cannot be used, or another run is using it."""


def listed(settings: PublisherSettings) -> ImageList:
    """The image list.

    Raises:
        UsageError: it cannot be read.
        ListError: it has problems.
    """
    return reader.load(settings.images, settings.name_template)


def plan(settings: PublisherSettings, listed: ImageList, snapshot: Snapshot, intake: Intake, wishes: RunOptions) -> Plan:
    """What a run would do, whether it is carried out or only shown.

    Raises:
        UsageError: a name that the list does not have.
    """
    entries, unlisted = entries_of(listed, wishes.names, intake)
    answers = intake.ask(entries, snapshot.records)
    answers |= quota.refusals(entries, snapshot, settings.quotas)
    now = datetime.now(UTC)
    made = make_plan(
        entries,
        answers,
        snapshot,
        whole=not wishes.names,
        rebind=wishes.rebind,
        unlisted=unlisted,
        allow_mass_removal=wishes.allow_mass_removal,
        today=now.date(),
    )
    return paced(made, BatchQuota(settings.adopt_sifs_per_run, now.toordinal()))


def entries_of(listed: ImageList, names: Sequence[str], intake: Intake) -> tuple[tuple[Entry, ...], list[UnlistedPattern]]:
    """The entries that are meant, those of wildcards among them; registries are asked for tags only where it takes them."""
    if names:
        with contextlib.suppress(UsageError):
            return reader.select(_live(listed.entries), names), []
    expanded: list[Entry] = []
    unlisted: list[UnlistedPattern] = []
    for pattern, tags in zip(listed.patterns, intake.tags(listed.patterns), strict=True):
        if isinstance(tags, PublisherError):
            unlisted.append(UnlistedPattern(str(pattern), pattern.covers, tags))
        else:
            expanded += reader.expand(pattern, tags)
    return reader.select(_live(listed.merged(expanded)), names), unlisted


def _live(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Those that have not expired. An entry that has keeps its name from a wildcard that covers it too."""
    today = datetime.now(UTC).date()
    return tuple(entry for entry in entries if entry.expires is None or entry.expires >= today)


def changes(settings: PublisherSettings, base: str | None) -> ListDiff:
    """What of the list is to be checked: all of it, or what it changes against the git revision ``base``.

    Raises:
        UsageError, ListError: as :func:`publisher.images.list_diff.since`.
    """
    if base is None:
        whole = reader.load(settings.images, settings.name_template)
        return ListDiff(whole, whole, ())
    return since(base, settings.images, settings.name_template)


def check(settings: PublisherSettings, changes: ListDiff, intake: Intake) -> list[CheckedEntry]:
    """Ask registries about entries, as everybody would; wildcards by the newest few images that they come to."""
    listed = changes.changed
    entries, checked = list(listed.entries), []
    for pattern, tags in zip(listed.patterns, intake.tags(listed.patterns), strict=True):
        if isinstance(tags, PublisherError):
            checked.append(lint.judge_unlisted(UnlistedPattern(str(pattern), pattern.covers, tags), pattern.line))
        else:
            expanded = reader.expand(pattern, tags)
            checked.append(lint.judge_wildcard(str(pattern), pattern.line, [entry.name for entry in expanded]))
            entries += expanded[:_SAMPLE]
    found, today = intake.inspect(entries), datetime.now(UTC).date()
    checked += [lint.judge(entry, found[entry.name], settings.max_unpacked_size, today) for entry in entries]
    checked += [lint.judge_quota(problem) for problem in quota.over_quota(changes.whole.entries, {}, settings.quotas)]
    return sorted(checked, key=lambda one: (one.line, one.name))


def intake(settings: PublisherSettings, display: Display) -> Intake:
    """The way in from the registries."""
    deadlines = RegistryTimeouts(small=settings.request_deadline, slowest=settings.slowest_fetch)
    look_up = docker_credentials()

    def client(credentials: LookUp, mirrors: Mapping[str, Sequence[str]]) -> RegistryClient:
        return RegistryClient(
            insecure=settings.insecure_registries,
            credentials=credentials,
            mirrors=mirrors,
            mirror_tags=settings.mirror_tags,
            deadlines=deadlines,
            patience=RetryPolicy(obeyed=settings.longest_pause),
            concurrency=settings.registry_concurrency,
            rates=settings.rates,
        )

    return Intake(
        lambda: client(look_up, settings.mirrors),
        lambda: BlobStore(settings.state / "blobs", limits=settings.limits),
        display,
        public=lambda: client(anonymous, {}),
        private_images=settings.private_images == "allowed",
    )


def repository(settings: PublisherSettings) -> Repository:
    """The repository that sandboxes go to.

    Raises:
        UsageError: it is not given.
    """
    place = settings.places().repository
    if isinstance(place, CvmfsTarget):
        return CvmfsRepository(place.fqrn, settings.repository_name, parents=image_directories())
    return DirectoryRepository(place, settings.repository_name)


def origin(settings: PublisherSettings) -> Origin:
    """The origin that SIFs go to.

    Raises:
        UsageError: it is not given, or the settings of its tokens do not fit together.
    """
    place = settings.places().origin
    if not isinstance(place, OriginAddress):
        return DirectoryOrigin(place)
    if place.direct and settings.uploads == "pelican":
        raise UsageError("the pelican command stores in federations only", hint="write origin as pelican://FEDERATION/PREFIX")
    ways = UploadOptions(
        tokens=_tokens(settings),
        removing=None if settings.removal_token_file is None else FileTokens(settings.removal_token_file),
        hosts=settings.origin_hosts,
        authority=settings.origin_authority,
        deadlines=transport.OriginTimeouts(settings.origin_deadline, settings.origin_deadline, settings.slowest_transfer),
        proxies=urllib.request.getproxies_environment(),
        checksums=settings.origin_checksums,
        program=PROGRAM if settings.uploads == "pelican" else None,
    )
    return PelicanOrigin(place if place.host else replace(place, host=settings.federation), ways)


def _tokens(settings: PublisherSettings) -> TokenSource:
    """Where the tokens come from that the origin is shown."""
    if settings.token_key is None:
        return EnvironmentTokens(os.environ) if settings.token_file is None else FileTokens(settings.token_file)
    if settings.token_file is not None or settings.token_issuer is None:
        raise UsageError("token_key goes with token_issuer, and not with token_file")
    claims = TokenClaims(settings.token_issuer, base=settings.token_base)
    return MintedTokens(signing.private_key(settings.token_key), settings.token_key_id, claims, time.time)


def publication(settings: PublisherSettings) -> Publication:
    """The way out to repository and origin.

    Raises:
        UsageError: places or key are not given, or cannot be used.
    """
    there = repository(settings)
    signer = signing.Signer(settings.signing_key())
    return Publication(
        there,
        origin(settings),
        signer,
        clock=time.time,
        trusted=tuple(map(signing.read_public_key, settings.trusted_keys)),
        grace=settings.removal_grace,
        revision_grace=settings.superseded_grace,
    )


def published(settings: PublisherSettings) -> Snapshot:
    """What is published, for looking only: no key, no lock, nothing repaired.

    Raises:
        UsageError: the repository is not given.
        PublishedManifestError: the manifest is damaged.
    """
    there = repository(settings)
    read = lambda name: there.read(f"{REPOSITORY_MANIFEST}/{name}")  # noqa: E731 - a function of one line
    return load(read, there.name, None) or Snapshot(there.name)


def sync(
    settings: PublisherSettings,
    plan: Plan,
    snapshot: Snapshot,
    *,
    intake: Intake,
    publication: Publication,
    display: Display,
    tidy: bool,
) -> RunReport:
    """Carry out a plan, clear away what may go (``tidy``), and keep the store of blobs within its bounds.

    Where there was no room for an image, what may go is cleared away all the same: it makes room.
    """
    tester = TestRunner(settings.test_account, _emptied(settings.state / "tmp"), settings.test_deadline)
    builder = LocalBuilder(
        settings.state / "builds",
        squasher(settings.compression, settings.squash_memory),
        tester,
        limits=settings.limits,
        deadline=settings.build_deadline,
    )
    limits = BatchLimits(settings.batch_size, settings.batch_time)
    run = Sync(intake, builder, publication, display, limits=limits)
    report = run.run(plan, snapshot)
    if tidy and (report.stopped is None or isinstance(report.stopped, SpaceError)):
        cleared = clear(settings, publication, run.snapshot)
        report.cleared, report.serial = cleared.lines, cleared.snapshot.serial
        report.stopped = report.stopped or cleared.error
    report.notes += [*intake.warnings(), *publication.repository.noticed()]
    intake.store.trim(settings.blob_cache, keep=())
    return report


def clear(settings: PublisherSettings, publication: Publication, snapshot: Snapshot, *, dry: bool = False) -> GcResult:
    """Clear away what has been superseded, or gone, for long enough."""
    bounds = RetentionLimits(settings.superseded_grace, settings.removals_per_run, settings.removed_size_per_run)
    return gc.clear(publication, snapshot, int(time.time()), bounds, dry=dry)


def record_of(snapshot: Snapshot, name: str) -> Record:
    """What is published under a name.

    Raises:
        UsageError: nothing.
    """
    record = snapshot.records.get(name)
    if record is None:
        raise UsageError(f"nothing is published under the name {name}")
    return record


def _emptied(scratch: Path) -> Path:
    """The directory for temporary files, without what killed runs left in it; the lock is held, so nobody else uses it.

    Raises:
        StateDirectoryError: it cannot be made or emptied.
    """
    with failures(StateDirectoryError, f"{scratch} cannot be made or emptied"):
        scratch.mkdir(parents=True, exist_ok=True)
        scratch.chmod(0o711)  # the test account passes through
        for left in scratch.iterdir():
            delete(left)
    return scratch


@contextlib.contextmanager
def locked(state: Path, way_out: str = "run again when that has ended") -> Iterator[None]:
    """Hold the state directory: one run at a time. ``way_out`` is what to do where another run has it.

    Raises:
        StateDirectoryError: another run is under way, or the directory cannot be made.
        SpaceError: no room left.
    """
    with contextlib.ExitStack() as stack:
        with failures(StateDirectoryError, f"the state directory {state} cannot be used"):
            state.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(files.locked(str(state / "lock"), deadline=0))
            except TimeoutError:
                raise StateDirectoryError(f"another run is using {state}", hint=f"it was not touched; {way_out}") from None
        yield
