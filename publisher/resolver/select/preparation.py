"""Making a version of an image ready: its sandbox is opened, or its SIF is fetched, and unpacked where SIFs cannot be mounted."""

from __future__ import annotations

import os
import time

from publisher.contract.errors import ExpectedError
from publisher.resolver.cache import cache
from publisher.resolver.config.settings import SANDBOX, SIF, UNPACKED
from publisher.resolver.errors import CacheError, DeadlineError, FetchError, ReadError, SandboxError
from publisher.resolver.select import sandbox
from publisher.resolver.transfer.open_source import sif_sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from publisher.contract.records import Sif
    from publisher.resolver.cache.cache import Cache
    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.select.choice import FormChoice
    from publisher.resolver.system.notes import Warnings
    from publisher.resolver.system.outage import Outage
    from publisher.resolver.trust.lookup import FoundVersion
    from publisher.resolver.trust.manifest_loader import TrustedManifest

_BLOCK_BYTES, _GUESSED_RATIO = 4096, 4
"""What each file takes more than its content, and how much larger than a SIF its content is, if nobody knows better."""
_FALLBACK_TIME, _MAX_FALLBACK_SHARE = 10.0, 0.25
"""What a SIF leaves for the form after it: seconds, and at most this share of the remaining time."""


class Resolution:
    """An image that is ready to be started.

    Attributes:
        form: ``sandbox``, ``sif``, or ``unpacked`` for a sandbox that was made from the SIF.
        path: absolute. Of a sandbox it is the directory itself, not the link with the name, which may move while the job runs.
        image: the version of the image; None if the manifest is too old to be trusted and the path was only found to exist.
        manifest: the manifest that was used.
        sif_source: where the SIF was fetched from just now, else empty.
        received: bytes that were fetched for it just now.
        copied: bytes that were copied for it from other SIFs of this host.
        why: why it has this form; empty if there was no choice.
    """

    __slots__ = ("copied", "form", "image", "manifest", "path", "received", "sif_source", "why")

    def __init__(self, form: str, path: str, image: FoundVersion | None, manifest: TrustedManifest, sif_source: str = "") -> None:
        self.form = form
        self.path = path
        self.image = image
        self.manifest = manifest
        self.sif_source = sif_source
        self.received = self.copied = 0
        self.why = ""

    def to_json(self, notes: Warnings) -> dict[str, Any]:
        """Return the resolution, what it is based on, and the notes, for programs. Unknown fields are null."""
        version = None if self.image is None else self.image.version
        sif = None if version is None or version.sif is None else version.sif
        return {
            "name": self.image and self.image.name,
            "form": self.form,
            "path": self.path,
            "arch": self.image and self.image.arch,
            "variant": self.image and self.image.variant,
            "digest": version and version.digest,
            "config": version and version.config,
            "sif": sif and {"sha256": sif.sha256, "size": sif.size},
            "state": version and version.state,
            "published": version and version.published,
            "since": version and version.since,
            "until": version and version.until,
            "signed": version and version.signed,
            "attached": version and version.attached,
            "sif_source": self.sif_source or None,
            "bytes": self.received,
            "copied": self.copied,
            "why": self.why,
            "manifest_source": self.manifest.source,
            "serial": self.manifest.index.serial,
            "manifest_age": self.manifest.age,
            "fork": notes.fork or None,
            "notes": notes.all,
        }


class Preparation:
    """A version of an image that is made ready in one form or another."""

    def __init__(
        self,
        image: FoundVersion,
        settings: ResolverSettings,
        manifest: TrustedManifest,
        outage: Outage,
        *,
        starter: Starter | None,
        directory: str | None,
    ) -> None:
        self._image = image
        self._directory = directory
        self._starter = starter
        self._settings = settings
        self._manifest = manifest
        self._outage = outage

    def first_available(self, choices: Sequence[FormChoice], notes: Warnings, until: float | None) -> Resolution:
        """Return the first form that can be made ready.

        Raises:
            ExpectedError: no form can. Of several forms the reason names every one's, and the class is that of the last one which
                is not the sandbox: a broken sandbox is no reason while the image has another form.
        """
        problems: list[ExpectedError] = []
        for candidate in choices:
            end = until if candidate is choices[-1] else _leave_time_for_fallback(until)
            try:
                if candidate.form == SANDBOX:
                    resolution = self._open_sandbox()
                else:
                    resolution = self._ensure_sif(end, notes, unpacked=candidate.form == UNPACKED)
            except ExpectedError as error:
                notes.add(str(error))
                problems.append(error)
            else:
                resolution.why = candidate.why
                return resolution
        if len(problems) == 1:
            raise problems[0]
        cause = next((problem for problem in reversed(problems) if not isinstance(problem, SandboxError)), problems[-1])
        raise type(cause)(f"no form of the image {self._image.name} is available: {'; '.join(map(str, problems))}")

    def _open_sandbox(self) -> Resolution:
        path = os.path.join(self._settings.repository, str(self._image.version.sandbox))
        try:
            sandbox.open_directory(path, self._directory)
        except FetchError as error:
            if isinstance(error, (DeadlineError, ReadError)):
                self._outage.begin()
            raise SandboxError(f"the sandbox {path} cannot be opened: {error}") from None
        self._outage.end()
        return Resolution(SANDBOX, path, self._image, self._manifest)

    def _ensure_sif(self, until: float | None, notes: Warnings, *, unpacked: bool) -> Resolution:
        sif = self._image.version.sif
        if sif is None:
            raise ValueError("choose_forms() never offers a SIF that is not published")
        path = self._find_in_store(sif.sha256, notes)
        if unpacked:
            return self._ensure_unpacked(sif, path, until)
        if path is not None:
            if self._settings.cache is not None:
                from publisher.resolver.cache import counters  # noqa: PLC0415 - small, and no sandbox needs it

                counters.count_hit(self._settings.cache)
            return Resolution(SIF, path, self._image, self._manifest)
        sources = sif_sources(self._settings)
        target = cache.from_settings(self._settings)
        path, fetched_from = target.ensure(sif, sources, until=until, starter=self._starter)
        return self._with_traffic(Resolution(SIF, path, self._image, self._manifest, fetched_from), target)

    def _ensure_unpacked(self, sif: Sif, path: str | None, until: float | None) -> Resolution:
        """Return the sandbox that is made from the SIF; ``path`` is that of the SIF in the store, None if it is not there."""
        settings, version = self._settings, self._image.version
        size = unpacked_size(sif.size, version.unpacked_size, version.files)
        target = cache.from_settings(settings)
        path, fetched_from = target.ensure_unpacked(
            sif,
            sif_sources(settings),
            size,
            until=until,
            starter=self._starter,
            path=path,
            apptainer=settings.apptainer,
        )
        return self._with_traffic(Resolution(UNPACKED, path, self._image, self._manifest, fetched_from), target)

    @staticmethod
    def _with_traffic(resolution: Resolution, target: Cache) -> Resolution:
        resolution.received, resolution.copied = target.received, target.copied
        return resolution

    def _find_in_store(self, sha256: str, notes: Warnings) -> str | None:
        """Return the path of a SIF in the host's store, or None if the store does not have it or cannot be trusted."""
        if self._settings.store is None:
            return None
        from publisher.resolver.cache import shared  # noqa: PLC0415 - few sites have a store

        try:
            return shared.find(self._settings.store, self._settings.store_owner, sha256, self._starter)
        except (OSError, CacheError) as error:
            notes.warn(str(error))
            return None


def unpacked_size(size: int, contents: int = 0, files: int = 0) -> int:
    """Return the bytes that a SIF of ``size`` bytes takes on disk at most when it is unpacked.

    Args:
        size: of the SIF.
        contents: bytes of all files in it, 0 if unknown.
        files: number of everything in it, 0 if unknown.
    """
    return contents + _BLOCK_BYTES * files if contents else _GUESSED_RATIO * size


def _leave_time_for_fallback(until: float | None) -> float | None:
    """Return when to give up on a form, so that some time is left for the next one."""
    return None if until is None else until - min(_FALLBACK_TIME, _MAX_FALLBACK_SHARE * max(0.0, until - time.monotonic()))
