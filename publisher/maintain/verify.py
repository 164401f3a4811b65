"""Verification of what is published against the manifest: sandboxes, SIFs and their chunk tables, links, the manifest itself.

Read-only, but for what a caller's ``repair`` does.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.build.sandbox.verify_tree import differences
from publisher.chunks.comparison import TableCheck
from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.contract.records import BLOCKED
from publisher.errors import OriginError, PublishedManifestError, PublisherError
from publisher.plan.retention import sif_objects
from publisher.state import paths, signing, transitions
from publisher.state.authorization import check_published
from publisher.targets import published_index
from publisher.targets.origins.replicated import ReplicatedOrigin
from publisher.targets.published_table import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from publisher.contract.records import Sif, Version
    from publisher.state.authorization import Authorization
    from publisher.state.signing import PublicKey
    from publisher.state.snapshot import Snapshot
    from publisher.targets.origins.base import Origin
    from publisher.targets.repositories.base import Repository

_SHOWN = 5
"""Number of problems of one tree or SIF that are listed; the others are counted."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VerifiedBuild:
    """A published version to verify, with one of the names and the platform that it is published under."""

    name: str
    platform: str
    version: Version


@dataclass(frozen=True)
class Repairs:
    """What restores damaged data; both functions raise PublisherError if they cannot.

    Attributes:
        sif: restores the SIF of a build.
        table: restores the chunk table of a build's SIF, which is intact.
    """

    sif: Callable[[VerifiedBuild], None]
    table: Callable[[VerifiedBuild], None]


def select_builds(snapshot: Snapshot, names: Collection[str]) -> list[VerifiedBuild]:
    """Return the builds that have data, each once: those of ``names``, or all if ``names`` is empty.

    One image can have several, because its names need not have the same forms.
    """
    selected: dict[tuple[str, str | None, str | None], VerifiedBuild] = {}
    for name, record in snapshot.records.items():
        for platform, version in record.versions() if not names or name in names else ():
            if version.state != BLOCKED:
                sif = None if version.sif is None else version.sif.path
                selected.setdefault((version.content, version.sandbox, sif), VerifiedBuild(name, platform, version))
    return list(selected.values())


def verify_manifest(repository: Repository, origin: Origin, now: float, trusted: Collection[PublicKey] | None) -> Iterator[str]:
    """Verify the manifest in repository and origin: same index, valid signature, not expired, every shard intact.

    Args:
        repository: the repository that has the authoritative index.
        origin: the origin that has a copy of it.
        now: seconds since the epoch.
        trusted: public keys, one of which must have signed the index; None if the signature cannot be checked.

    Yields:
        A line for each problem.

    Raises:
        ManifestError: the repository's index cannot be parsed.
    """
    index = repository.read(f"{paths.REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}")
    if index is None:
        yield "the repository has no manifest"
        return
    origin_index = origin.read(f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}")
    if origin_index != index:
        yield "the origin's manifest differs from the repository's; the next sync updates it"
    for place, content in (("repository", index), ("origin", origin_index)):
        if trusted is not None and content is not None:
            yield from _verify_signature(place, content, trusted)
    parsed = manifest.Index.parse(manifest.unseal(index)[0])
    yield from _verify_age(parsed, now)
    for sha256 in sorted({sha256 for sha256 in (*parsed.shards, parsed.outcomes) if sha256 is not None}):
        name = manifest.shard_name(sha256)
        for place, content in (
            ("repository", repository.read(f"{paths.REPOSITORY_MANIFEST}/{name}")),
            ("origin", origin.read(f"{paths.ORIGIN_MANIFEST}/{name}")),
        ):
            if content is None:
                yield f"the {place} has no {name}, which the manifest names"
            elif hashlib.sha256(content).hexdigest() != sha256:
                yield f"the {place}'s {name} is damaged"


def _verify_age(index: manifest.Index, now: float) -> Iterator[str]:
    if index.is_from_future(now):
        yield "the manifest was signed at a time that has not come yet; if this clock is right, the next sync signs it again"
    elif index.age(now) != manifest.FRESH:
        yield "the manifest has expired; the next sync signs a new one"


def _verify_signature(place: str, index: bytes, trusted: Collection[PublicKey]) -> Iterator[str]:
    try:
        signing.verify(*manifest.unseal(index), trusted)
    except ManifestError:
        yield f"the {place}'s manifest is damaged"
    except PublishedManifestError:
        yield f"the {place}'s manifest is signed neither by this publisher's key nor by a key in trusted_keys"


def verify_authorization(repository: Repository, authorization: Authorization | None, now: float) -> Iterator[str]:
    """Verify that execution points with the root key accept the manifest: enough keys of the newest keys document signed it.

    Args:
        repository: the repository that has the authoritative index.
        authorization: the keys document of this publisher, None with one level of keys.
        now: seconds since the epoch.

    Yields:
        A line for each problem; also if the keys will expire soon.
    """
    index = repository.read(f"{paths.REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}")
    try:
        check_published(index, authorization, ())
    except PublishedManifestError as error:
        yield error.reason
    if authorization is not None and authorization.document.keys:
        warning = authorization.expiry_warning(authorization.publics, now)
        if warning is not None:
            yield warning


def verify_links(repository: Repository, snapshot: Snapshot) -> Iterator[str]:
    """Verify the links for images: every link of a record exists, and there are no others.

    The absolute links that the older tool (cvmfs-singularity-sync) made to the same sandbox are accepted.

    Yields:
        A line for each problem.
    """
    links = repository.links()
    expected = {path: target for record in snapshot.records.values() for path, target in transitions.links(record).items()}
    for path, target in expected.items():
        absolute = f"/cvmfs/{repository.name}/{target.rpartition('../')[2]}"
        if path not in links:
            yield f"{path}: the link is missing"
        elif links[path] not in {target, absolute}:
            yield f"{path}: the link points to {links[path]}, not to {target}"
    for path in sorted(links.keys() - expected.keys()):
        yield f"{path}: the manifest has no image for this link"


def verify_catalogs(repository: Repository, snapshot: Snapshot) -> Iterator[str]:
    """Verify the file that makes CVMFS keep all images out of the repository's root catalog.

    It is created with the first image that this program builds; a repository that has only adopted images may lack it.

    Yields:
        A line if the file is missing.
    """
    built = any(
        build.version.sandbox is not None and build.version.file_index is not None for build in select_builds(snapshot, ())
    )
    if built and not repository.exists(f"{paths.IMAGES}/{paths.CATALOG_MARK}"):
        yield f"{paths.IMAGES} has no {paths.CATALOG_MARK}"


def objects(builds: Iterable[VerifiedBuild]) -> list[str]:
    """Return the names of the objects that an origin should have of some builds: SIFs, and their chunk tables."""
    return [path for build in builds if build.version.sif is not None for path in sorted(sif_objects(build.version.sif))]


def verify_followers(origin: Origin, builds: Iterable[VerifiedBuild], *, deep: bool) -> Iterator[str]:
    """Verify that the origins which follow another one have what it has of some builds; with ``deep``, with the same content.

    Yields:
        A line for each object that one lacks, and for each origin that could not be asked.
    """
    if not isinstance(origin, ReplicatedOrigin):
        return
    for name, lacking in origin.lacking(objects(builds), deep=deep).items():
        yield from (f"the origin {name} lacks {path}, or has it damaged" for path in lacking)
    yield from origin.warnings()


def select_missing(origin: Origin, builds: Iterable[VerifiedBuild]) -> list[VerifiedBuild]:
    """Return the builds of which the origin does not list the SIF and its table: cheap enough for all. Raises OriginError."""
    stored = set(origin.names(paths.SIF_PREFIX))
    sifs = ((build, build.version.sif) for build in builds)
    return [build for build, sif in sifs if sif is not None and not sif_objects(sif) <= stored]


def verify_build(repository: Repository, origin: Origin, build: VerifiedBuild, repairs: Repairs | None = None) -> Iterator[str]:
    """Verify a build: its sandbox against the file index, its SIF against sha256, size and chunk table.

    Args:
        repository: has the sandbox.
        origin: has the SIF.
        build: the build.
        repairs: restore the SIF or its table if they are missing or damaged; None to change nothing.

    Yields:
        A line for each problem; it begins with name, platform and the digest that ``publisher block`` takes.
    """
    # the SIF apart, because a publish waits for a consistent read and makes it start over
    label = _label(build)
    _log.debug("verifying %s", label)
    yield from _checked(label, lambda: repository.read_consistently(lambda: _limit(_verify_sandbox(repository, build.version))))
    yield from verify_sif(origin, build, repairs)


def verify_sif(origin: Origin, build: VerifiedBuild, repairs: Repairs | None = None) -> Iterator[str]:
    """Verify only the SIF of a build, as :func:`verify_build` does."""
    yield from _checked(_label(build), lambda: _limit(_verify_sif(origin, build, repairs)))


def _checked(label: str, check: Callable[[], list[str]]) -> Iterator[str]:
    """Yield the problems that a check finds, each with the label, or why it could not be made."""
    try:
        for problem in check():
            yield f"{label}: {problem}"
    except (OSError, PublisherError) as error:
        yield f"{label}: cannot be read: {error}"


def _limit(problems: Iterator[str]) -> list[str]:
    """Return the first problems, and a line that counts the others."""
    shown, count = [], 0
    for count, problem in enumerate(problems, 1):
        if count <= _SHOWN:
            shown.append(problem)
    return shown if count <= _SHOWN else [*shown, f"and {count - _SHOWN} more"]


def _verify_sandbox(repository: Repository, version: Version) -> Iterator[str]:
    if version.sandbox is None:
        return
    if not repository.exists(version.sandbox):
        yield f"the sandbox {version.sandbox} is missing"
        return
    if version.file_index is None:
        return  # adopted from the older tool
    if not repository.exists(f"{version.sandbox}/{paths.CATALOG_MARK}"):
        yield f"the sandbox has no {paths.CATALOG_MARK}"
    try:
        published_index.check(repository, version)
    except PublishedManifestError as error:
        yield error.reason
        return
    yield from differences(published_index.lines(repository, version), str(repository.root / version.sandbox))


def _verify_sif(origin: Origin, build: VerifiedBuild, repairs: Repairs | None) -> Iterator[str]:
    sif = build.version.sif
    if sif is None:
        return
    problem, table_problem = _find_sif_problems(origin, sif)
    yield from _repaired(build, problem, None if repairs is None else repairs.sif)
    yield from _repaired(build, table_problem, None if repairs is None else repairs.table)


def _repaired(build: VerifiedBuild, problem: str | None, repair: Callable[[VerifiedBuild], None] | None) -> Iterator[str]:
    """Repair what is wrong with a build, if anything is; yield the problem if it stays."""
    if problem is not None and repair is not None:
        try:
            repair(build)
            _log.info("%s: repaired: %s", _label(build), problem)
        except PublisherError as error:
            yield f"{problem}, and cannot be restored: {error}"
    elif problem is not None:
        yield problem


def _find_sif_problems(origin: Origin, sif: Sif) -> tuple[str | None, str | None]:
    """Return what is wrong with a SIF, and with its chunk table if the SIF is right; the SIF is read once for both."""
    size = origin.size(sif.path)
    if size is None:
        return f"the SIF {sif.path} is missing", None
    if size != sif.size:
        return f"the SIF {sif.path} has {size} bytes, not {sif.size}", None
    check: TableCheck | None = None
    problem: str | None = None
    try:
        table = read_table(origin, sif)
        check = None if table is None else TableCheck(table)
    except OriginError as error:
        problem = error.reason
    if origin.sha256(sif.path, check) != sif.sha256:
        return f"the SIF {sif.path} is damaged", None
    if check is not None and not check.fits():
        problem = f"the chunk table of the SIF {sif.path} does not fit it"
    return None, problem


def _label(build: VerifiedBuild) -> str:
    return f"{build.name} {build.platform} {build.version.digest}"
