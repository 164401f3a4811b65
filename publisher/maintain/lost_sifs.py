"""SIFs that the origin has lost or damaged: found by an audit of a share of them in each run, and restored by a new build.

The same image gives the same bytes, so a restored SIF usually has its old name and the manifest stays as it is. Newer tools can
give other bytes; then every version that named the lost SIF names the new one.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from publisher.contract.errors import InvalidReferenceError
from publisher.contract.records import BLOCKED
from publisher.errors import BlobError, OriginError, PublisherError, SpaceError
from publisher.images.entry import Entry
from publisher.images.sif_sources import parse
from publisher.maintain.verify import VerifiedBuild
from publisher.plan.model import Action, PlanItem, PlatformTarget
from publisher.state import transitions
from publisher.state.paths import key_platform

if TYPE_CHECKING:
    from collections.abc import Iterable

    from publisher.build.builder import Builder
    from publisher.contract.records import Sif
    from publisher.publish.intake import Intake
    from publisher.publish.publication import Publication
    from publisher.state.built import BuiltImage
    from publisher.state.snapshot import Snapshot
    from publisher.system.progress import Display
    from publisher.targets.origins.base import Origin

_log = logging.getLogger(__name__)


def select_share(snapshot: Snapshot, after: str, count: int) -> list[VerifiedBuild]:
    """Return the builds of which one run audits the SIFs: the next ``count`` after the path ``after``, in a circle."""
    builds: dict[str, VerifiedBuild] = {}
    for name, record in snapshot.records.items():
        for platform, version in record.versions():
            if version.sif is not None and version.state != BLOCKED:  # the newest manifest with a content: registries keep it
                builds.setdefault(version.sif.path, VerifiedBuild(name, platform, version))
    ordered = sorted(builds, key=lambda path: (path <= after, path))
    return [builds[path] for path in ordered[:count]]


def find_lost(origin: Origin, builds: Iterable[VerifiedBuild]) -> list[VerifiedBuild]:
    """Return the builds of which the origin has no SIF, or one of another size. Raises OriginError."""
    named = ((build, build.version.sif) for build in builds)
    return [build for build, sif in named if sif is not None and origin.size(sif.path) != sif.size]


class SifRestorer:
    """Restores lost SIFs: fetches the image by its digest, builds it again and stores the SIF.

    Args:
        publication: the open publication.
        snapshot: the published state.
        intake: fetches images.
        builder: builds them.
        display: shows progress.

    Attributes:
        snapshot: the published state now.
    """

    def __init__(self, publication: Publication, snapshot: Snapshot, intake: Intake, builder: Builder, display: Display) -> None:
        self.snapshot = snapshot
        self._publication = publication
        self._intake = intake
        self._builder = builder
        self._display = display

    def restore(self, build: VerifiedBuild) -> None:
        """Store the SIF of a build again; a damaged one is removed first.

        Raises:
            PublisherError: the image cannot be fetched or built, or its SIF cannot be stored; the manifest is as before.
        """
        lost = build.version.sif
        if lost is None:
            raise AssertionError
        try:
            self._restore(build, lost)
        except PublisherError as error:
            error.hint = error.hint or f"restore it from a backup of the origin, or run: publisher block {build.version.digest}"
            raise

    def _restore(self, build: VerifiedBuild, lost: Sif) -> None:
        for request in self._intake.fetch(
            _item(build, build.version.reference or self.snapshot.records[build.name].reference)
        ).result():
            built = self._builder.build(request, partial(self._display.step, request.name))
            if built.sha256 == lost.sha256:
                self._publication.origin.remove(lost.path)
            self._publication.store_sif(built)
            if built.sha256 != lost.sha256:
                self._rename(lost, built)
            self._builder.discard(request)
        _log.info("restored the SIF of %s %s", build.name, build.version.digest)

    def _rename(self, lost: Sif, built: BuiltImage) -> None:
        """Publish the manifest with the new SIF in place of the lost one."""
        changed = transitions.replace_sif(self.snapshot.records.values(), lost, built)
        result = self._publication.change(self.snapshot, changed, relink=False)
        self.snapshot = result.snapshot
        if result.behind is not None:
            raise result.behind


def restore_all(restorer: SifRestorer, lost: Iterable[VerifiedBuild]) -> tuple[list[str], list[PublisherError]]:
    """Restore lost SIFs; return a line for each that was restored, and an error for each that was not.

    A full disk ends it: it would refuse the next one as well.
    """
    lines: list[str] = []
    failures: list[PublisherError] = []
    for build in lost:
        try:
            restorer.restore(build)
        except PublisherError as error:
            reason = f"the origin has lost its SIF ({build.platform}), which cannot be restored: {error.reason}"
            failures.append(OriginError(reason, image=build.name, hint=error.hint))
            if isinstance(error, SpaceError):
                break
        else:
            lines.append(
                f"{build.name} {build.platform}: the origin had lost the SIF of {build.version.digest}, which is restored"
            )
    return lines, failures


def _item(build: VerifiedBuild, reference: str) -> PlanItem:
    """Return what :meth:`Intake.fetch` takes for the image of a build. Raises BlobError if the reference is not valid."""
    try:
        parsed = parse(reference)
    except InvalidReferenceError as error:
        raise BlobError(f"the record's reference {reference!r} is not valid: {error.reason}") from None
    platform = key_platform(build.platform)
    target = PlatformTarget(platform, build.version.digest, build.version.digest, None)
    entry = Entry(build.name, parsed, (platform,), frozenset({"sif"}))
    return PlanItem(entry, Action.CHANGED, "its SIF is lost", build.version.digest, (target,))
