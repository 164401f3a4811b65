"""Assembles the targets of a publication (repository, origin, signing key) from the settings, and reads what is published."""

from __future__ import annotations

import logging
import os
import pwd
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.cli.console import console
from publisher.errors import UsageError
from publisher.publish.manifest.manifest_copy import ManifestCopy
from publisher.publish.manifest.witness import GitWitness, OriginWitness
from publisher.publish.publication import Publication
from publisher.settings.targets import CvmfsTarget, GitTarget
from publisher.signing import credentials
from publisher.signing.manifest_signer import JointSigner, open_key, read_authorization
from publisher.state import signing
from publisher.state.paths import REPOSITORY_MANIFEST, image_directories
from publisher.state.snapshot import Snapshot, load
from publisher.targets.origins.directory import DirectoryOrigin
from publisher.targets.origins.replicated import ReplicatedOrigin
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.repositories.cvmfs.repository import CvmfsRepository
from publisher.targets.repositories.directory import DirectoryRepository

if TYPE_CHECKING:
    from publisher.contract.records import Record
    from publisher.net.server_dates import ServerDates
    from publisher.publish.manifest.witness import Witness
    from publisher.settings.settings import PublisherSettings
    from publisher.state.authorization import Authorization
    from publisher.state.signing import PublicKey
    from publisher.targets.origins.base import Origin
    from publisher.targets.repositories.base import Repository


def make_repository(settings: PublisherSettings) -> Repository:
    """Return the repository for sandboxes.

    Raises:
        UsageError: the setting is missing.
    """
    target = settings.targets().repository
    if isinstance(target, CvmfsTarget):
        return CvmfsRepository(target.fqrn, settings.repository_name, parents=image_directories())
    return DirectoryRepository(target, settings.repository_name)


def make_origin(settings: PublisherSettings) -> Origin:
    """Return the origin for SIFs, with the origins that follow it.

    Raises:
        UsageError: the setting is missing, or settings for tokens or uploads contradict each other.
    """
    first = _open_origin(settings, settings.targets().origin)
    if not settings.further_origins:
        return first
    followers = {str(target): _open_origin(settings, target) for target in settings.further_origins}
    return ReplicatedOrigin(first, followers, settings.state if settings.state.is_dir() else None)


def _open_origin(settings: PublisherSettings, target: Path | OriginAddress) -> Origin:
    if not isinstance(target, OriginAddress):
        return DirectoryOrigin(target)
    from publisher.cli.assembly.pelican import make_pelican_origin  # noqa: PLC0415 - half of a command's start

    return make_pelican_origin(settings, target)


def make_publication(settings: PublisherSettings, start_from: str | None = None, dates: ServerDates | None = None) -> Publication:
    """Return the publication to repository and origin; it is not open yet.

    Args:
        settings: the settings.
        start_from: the place whose manifest is continued in any case, None for the highest revision.
        dates: what registries say of the time.

    Raises:
        UsageError: a target or the key is missing or cannot be used.
    """
    repository, origin, now = make_repository(settings), make_origin(settings), time.time()
    authorization = load_authorization(settings, repository)
    keys = [open_key(source, console.ask_secret) for source in (settings.signing_key(), *settings.cosigning_keys)]
    signer = JointSigner(keys, authorization)
    if authorization is not None:
        authorization.check(signer.publics, now)
        warning = authorization.expiry_warning(signer.publics, now)
        if warning is not None:
            console.tell(warning, logging.WARNING)
    return Publication(
        repository,
        origin,
        signer,
        clock=time.time,
        copy=ManifestCopy(settings.state / "published" / repository.name),
        start_from=start_from,
        dates=dates,
        trusted=tuple(map(signing.read_public_key, settings.trusted_keys)),
        grace=settings.removal_grace,
        revision_grace=settings.superseded_grace,
        who=settings.operator or _account_and_host(),
        witness=make_witness(settings),
        secrets=secret_files(settings),
    )


def secret_files(settings: PublisherSettings) -> list[Path]:
    """Return the files and directories that no program which handles an image's bytes may read."""
    keys = [source for source in (settings.key, *settings.cosigning_keys) if isinstance(source, Path)]
    files = [settings.token_key, settings.token_file, settings.removal_token_file]
    directories = [Path(os.environ[credentials.VARIABLE])] if os.environ.get(credentials.VARIABLE) else []
    return [*keys, *(path for path in files if path is not None), *directories]


def _account_and_host() -> str:
    account = os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    return f"{account}@{socket.gethostname()}"


def make_witness(settings: PublisherSettings) -> Witness | None:
    """Return the witness of the publication log, None if none is set."""
    target = settings.witness
    if target is None:
        return None
    if isinstance(target, GitTarget):
        return GitWitness(target.url, settings.state / "witness")
    return OriginWitness(_open_origin(settings, target))


def load_authorization(settings: PublisherSettings, repository: Repository) -> Authorization | None:
    """Return the authorization of the signing keys, None with one level of keys. Raise UsageError if it cannot be used."""
    return read_authorization(settings.keys_document, settings.root_keys, repository.name)


def trusted_keys(settings: PublisherSettings) -> tuple[PublicKey, ...] | None:
    """Return the keys of which one must have signed the published manifest; None if the publisher's own key cannot be read.

    Raises:
        UsageError: another key, or the keys document, cannot be used.
    """
    key = settings.key
    own = signing.public_key_of(key) if key is None or isinstance(key, Path) else open_key(key, console.ask_secret).public
    if own is None:
        return None
    authorization = load_authorization(settings, make_repository(settings))
    return (own, *map(signing.read_public_key, settings.trusted_keys), *(authorization.publics if authorization else ()))


def load_snapshot(settings: PublisherSettings) -> Snapshot:
    """Return the published state, read-only: without key or lock, and without recovery from killed runs.

    Raises:
        UsageError: the setting ``repository`` or ``origin`` is missing.
        PublishedManifestError: the manifest is damaged.
    """
    repository = make_repository(settings)
    snapshot = load(lambda name: repository.read(f"{REPOSITORY_MANIFEST}/{name}"), repository.name, None)
    return snapshot or Snapshot(repository.name)


def find_record(snapshot: Snapshot, name: str) -> Record:
    """Return the record of a published name.

    Raises:
        UsageError: nothing is published under the name.
    """
    record = snapshot.records.get(name)
    if record is None:
        raise UsageError(f"nothing is published under the name {name}")
    return record
