"""The parts of a run, put together from the settings."""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from publisher import checking, images, quota, signing
from publisher.blobs import BlobStore
from publisher.builders.local import LocalBuilder
from publisher.catalog import Catalog, load
from publisher.changes import Changes, since
from publisher.difference import difference
from publisher.errors import CatalogError, PublisherError, UsageError
from publisher.intake import Intake
from publisher.layers.files import read_file_index
from publisher.layout import REPOSITORY_MANIFEST, file_index_path
from publisher.origins.directory import DirectoryOrigin
from publisher.plan import Plan, Unlisted, make_plan
from publisher.publication import Publication
from publisher.registry import RegistryClient, anonymous, docker_credentials
from publisher.registry.patience import Patience
from publisher.registry.transport import Deadlines
from publisher.repositories.directory import DirectoryRepository
from publisher.resolver import files
from publisher.squash import squasher
from publisher.storage import delete, failures
from publisher.sync import BatchLimits, Sync
from publisher.testrun import TestRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from publisher.checking import Checked
    from publisher.config import Settings
    from publisher.difference import Change
    from publisher.images import Entry, ImageList
    from publisher.layers.files import IndexedFile
    from publisher.registry import Credentials
    from publisher.reports.progress import Display
    from publisher.reports.run import Report
    from publisher.repositories import Repository
    from publisher.resolver.manifest import Version

    LookUp = Callable[[str], Credentials | None]


_SAMPLE = 3  # images of a wildcard that are looked at


@dataclass(frozen=True)
class Wishes:
    """What the operator says for one run.

    Attributes:
        names: the images that are meant, all where none is named.
        rebind: published names that may come from another repository from now on.
        allow_mass_removal: more names than usual may leave.
    """

    names: tuple[str, ...] = ()
    rebind: tuple[str, ...] = ()
    allow_mass_removal: bool = False


class StateError(PublisherError):
    """The state directory cannot be used, or another run is using it."""


def listed(settings: Settings) -> ImageList:
    """The image list.

    Raises:
        UsageError: it cannot be read.
        ListError: it has problems.
    """
    return images.load(settings.images, settings.name_template)


def plan(settings: Settings, listed: ImageList, catalog: Catalog, intake: Intake, wishes: Wishes) -> Plan:
    """What a run would do, whether it is carried out or only shown.

    Raises:
        UsageError: a name that the list does not have.
    """
    entries, unlisted = _entries(listed, wishes.names, intake)
    answers = intake.ask(entries, catalog.records)
    answers |= quota.refused(entries, catalog, settings.quotas)
    return make_plan(
        entries,
        answers,
        catalog,
        whole=not wishes.names,
        rebind=wishes.rebind,
        unlisted=unlisted,
        allow_mass_removal=wishes.allow_mass_removal,
    )


def _entries(listed: ImageList, names: Sequence[str], intake: Intake) -> tuple[tuple[Entry, ...], list[Unlisted]]:
    """The entries that are meant, those of wildcards among them; registries are asked for tags only where it takes them."""
    if names:
        with contextlib.suppress(UsageError):
            return images.select(_live(listed.entries), names), []
    expanded: list[Entry] = []
    unlisted: list[Unlisted] = []
    for pattern, tags in zip(listed.patterns, intake.tags(listed.patterns), strict=True):
        if isinstance(tags, PublisherError):
            unlisted.append(Unlisted(str(pattern), pattern.covers, tags))
        else:
            expanded += images.expand(pattern, tags)
    return images.select(_live(listed.merged(expanded)), names), unlisted


def _live(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Those that have not expired. An entry that has keeps its name from a wildcard that covers it too."""
    today = datetime.now(UTC).date()
    return tuple(entry for entry in entries if entry.expires is None or entry.expires >= today)


def diff(settings: Settings, one: str, other: str | None, platform: str, *, times: bool) -> Iterator[Change]:
    """What changed between two builds; of a name alone, between the build before and the one that it means now.

    Args:
        settings: say where the repository is.
        one: a CVMFS name, or the digest of a platform's manifest.
        other: likewise, None for the second of a name's builds.
        platform: which of a name's platforms.
        times: times count as well.

    Raises:
        UsageError: there is no such build, or its file index is not published.
        CatalogError: a file index is not what the manifest says.
    """
    places = settings.places()
    repository = DirectoryRepository(places.repository, settings.repository_name)
    catalog = published(settings)
    if other is None:
        versions = catalog.versions(one, platform)
        if len(versions) == 1:
            raise UsageError(f"{one} has one build only", hint="name another image or digest to compare it with")
        before, after = versions[1], versions[0]
    else:
        before, after = (_version(catalog, text, platform) for text in (one, other))
    return difference(*(partial(_file_index, repository, version) for version in (before, after)), times=times)


def _version(catalog: Catalog, text: str, platform: str) -> Version:
    if not text.startswith("sha256:"):
        return catalog.versions(text, platform)[0]
    found = next(
        (version for record in catalog.records.values() for _, version in record.versions() if version.manifest == text), None
    )
    if found is None:
        raise UsageError(f"no build of {text} is published", hint="it is the digest of a platform's manifest that is meant")
    return found


def _file_index(repository: Repository, version: Version) -> Iterator[IndexedFile]:
    content = repository.read(file_index_path(version.manifest))
    if content is None or version.file_index is None:
        raise UsageError(f"the file index of {version.manifest} is not published")
    if hashlib.sha256(content).hexdigest() != version.file_index:
        raise CatalogError(f"the file index of {version.manifest} is not what the manifest says")
    return read_file_index(io.BytesIO(content))


def changes(settings: Settings, base: str | None) -> Changes:
    """What of the list is to be checked: all of it, or what it changes against the git revision ``base``.

    Raises:
        UsageError, ListError: as :func:`publisher.changes.since`.
    """
    if base is None:
        whole = images.load(settings.images, settings.name_template)
        return Changes(whole, whole, ())
    return since(base, settings.images, settings.name_template)


def check(settings: Settings, changes: Changes, intake: Intake) -> list[Checked]:
    """Ask registries about entries, as everybody would; wildcards by the newest few images that they come to."""
    listed = changes.changed
    entries, checked = list(listed.entries), []
    for pattern, tags in zip(listed.patterns, intake.tags(listed.patterns), strict=True):
        if isinstance(tags, PublisherError):
            checked.append(checking.judge_unlisted(Unlisted(str(pattern), pattern.covers, tags), pattern.line))
        else:
            expanded = images.expand(pattern, tags)
            checked.append(checking.judge_wildcard(str(pattern), pattern.line, [entry.name for entry in expanded]))
            entries += expanded[:_SAMPLE]
    found = intake.inspect(entries)
    checked += [checking.judge(entry, found[entry.name], settings.max_unpacked_size) for entry in entries]
    checked += [checking.judge_quota(problem) for problem in quota.over_quota(changes.whole.entries, {}, settings.quotas)]
    return sorted(checked, key=lambda one: (one.line, one.name))


def intake(settings: Settings, display: Display) -> Intake:
    """The way in from the registries."""
    deadlines = Deadlines(small=settings.request_deadline, slowest=settings.slowest_fetch)
    look_up = docker_credentials()

    def client(credentials: LookUp, mirrors: Mapping[str, Sequence[str]]) -> RegistryClient:
        return RegistryClient(
            insecure=settings.insecure_registries,
            credentials=credentials,
            mirrors=mirrors,
            mirror_tags=settings.mirror_tags,
            deadlines=deadlines,
            patience=Patience(obeyed=settings.longest_pause),
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


def publication(settings: Settings) -> Publication:
    """The way out to repository and origin.

    Raises:
        UsageError: places or key are not given, or cannot be used.
    """
    places = settings.places()
    repository = DirectoryRepository(places.repository, settings.repository_name)
    signer = signing.Signer(settings.signing_key())
    trusted = tuple(map(signing.read_public_key, settings.trusted_keys))
    return Publication(
        repository, DirectoryOrigin(places.origin), signer, clock=time.time, trusted=trusted, grace=settings.removal_grace
    )


def published(settings: Settings) -> Catalog:
    """What is published, for looking only: no key, no lock, nothing repaired.

    Raises:
        UsageError: the repository is not given.
        CatalogError: the manifest is damaged.
    """
    places = settings.places()
    repository = DirectoryRepository(places.repository, settings.repository_name)
    read = lambda name: repository.read(f"{REPOSITORY_MANIFEST}/{name}")  # noqa: E731 - a function of one line
    return load(read, repository.name, None) or Catalog(repository.name)


def sync(
    settings: Settings, plan: Plan, catalog: Catalog, *, intake: Intake, publication: Publication, display: Display
) -> Report:
    """Carry out a plan, and keep the store of blobs within its bounds."""
    tester = TestRunner(settings.test_account, _emptied(settings.state / "tmp"), settings.test_deadline)
    builder = LocalBuilder(
        settings.state / "builds",
        squasher(settings.compression, settings.squash_memory),
        tester,
        limits=settings.limits,
        deadline=settings.build_deadline,
    )
    limits = BatchLimits(settings.batch_size, settings.batch_time)
    report = Sync(intake, builder, publication, display, limits=limits).run(plan, catalog)
    report.notes += intake.warnings()
    intake.store.trim(settings.blob_cache, keep=())
    return report


def _emptied(scratch: Path) -> Path:
    """The directory for temporary files, without what killed runs left in it; the lock is held, so nobody else uses it.

    Raises:
        StateError: it cannot be made or emptied.
    """
    with failures(StateError, f"{scratch} cannot be made or emptied"):
        scratch.mkdir(parents=True, exist_ok=True)
        scratch.chmod(0o711)  # the test account passes through
        for left in scratch.iterdir():
            delete(left)
    return scratch


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the state directory: one run at a time.

    Raises:
        StateError: another run is under way, or the directory cannot be made.
        SpaceError: no room left.
    """
    with contextlib.ExitStack() as stack:
        with failures(StateError, f"the state directory {state} cannot be used"):
            state.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(files.locked(str(state / "lock"), deadline=0))
            except TimeoutError:
                raise StateError(
                    f"another run is using {state}", hint="it was not touched; run again when that has ended"
                ) from None
        yield
