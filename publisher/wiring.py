"""The parts of a run, put together from the settings."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher import images, signing
from publisher.blobs import BlobStore
from publisher.builders.local import LocalBuilder
from publisher.catalog import Catalog, load
from publisher.errors import PublisherError
from publisher.intake import Intake
from publisher.layout import REPOSITORY_MANIFEST
from publisher.origins.directory import DirectoryOrigin
from publisher.plan import Plan, make_plan
from publisher.publication import Publication
from publisher.registry import RegistryClient, docker_credentials
from publisher.registry.transport import Deadlines
from publisher.repositories.directory import DirectoryRepository
from publisher.resolver import files
from publisher.squash import squasher
from publisher.storage import delete, failures
from publisher.sync import BatchLimits, Sync
from publisher.testrun import TestRunner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from publisher.config import Settings
    from publisher.images import Entry
    from publisher.reports.progress import Display
    from publisher.reports.run import Report


class StateError(PublisherError):
    """The state directory cannot be used, or another run is using it."""


def wanted(settings: Settings, names: Sequence[str]) -> tuple[Entry, ...]:
    """The entries of the list that are meant: all that have not expired, or those named.

    Raises:
        UsageError: the list cannot be read, or does not have a name.
        ListError: the list has problems.
    """
    entries = images.load(settings.images, settings.name_template)
    today = datetime.now(UTC).date()
    live = [entry for entry in entries if entry.expires is None or entry.expires >= today]
    return images.select(live, names)


def plan(settings: Settings, names: Sequence[str], rebind: Sequence[str], intake: Intake, catalog: Catalog) -> Plan:
    """What a run would do, whether it is carried out or only shown."""
    entries = wanted(settings, names)
    answers = intake.ask(entries, catalog.records)
    return make_plan(entries, answers, catalog, whole=not names, rebind=rebind)


def intake(settings: Settings, display: Display) -> Intake:
    """The way in from the registries."""
    blobs = settings.state / "blobs"
    deadlines = Deadlines(small=settings.request_deadline, slowest=settings.slowest_fetch)

    def client() -> RegistryClient:
        return RegistryClient(insecure=settings.insecure_registries, credentials=docker_credentials(), deadlines=deadlines)

    return Intake(client, lambda: BlobStore(blobs, limits=settings.limits), display)


def publication(settings: Settings) -> Publication:
    """The way out to repository and origin.

    Raises:
        UsageError: places or key are not given, or cannot be used.
    """
    places = settings.places()
    repository = DirectoryRepository(places.repository, settings.repository_name)
    signer = signing.Signer(settings.signing_key())
    trusted = tuple(map(signing.read_public_key, settings.trusted_keys))
    return Publication(repository, DirectoryOrigin(places.origin), signer, clock=time.time, trusted=trusted)


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
