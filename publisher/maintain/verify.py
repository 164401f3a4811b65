"""Whether what is published is still what the manifest says: trees, SIFs, links, the manifest itself. Looks, mends nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.errors import PublishedManifestError, PublisherError
from publisher.maintain.verify_tree import differences
from publisher.state import paths, signing, transitions
from publisher.targets import published_index

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from publisher.contract.manifest import Version
    from publisher.state.signing import PublicKey
    from publisher.state.snapshot import Snapshot
    from publisher.targets.origins.base import Origin
    from publisher.targets.repositories.base import Repository

_SHOWN = 5
"""Paths of one tree that are named; the others are counted."""


@dataclass(frozen=True)
class VerifiedBuild:
    """A version whose data is looked at, and a name that it has."""

    name: str
    platform: str
    version: Version


def builds(snapshot: Snapshot, names: Collection[str]) -> list[VerifiedBuild]:
    """All that has data, each once: of ``names``, or of all where none is given."""
    found: dict[tuple[str, str | None], VerifiedBuild] = {}
    for name, record in snapshot.records.items():
        for platform, version in record.versions() if not names or name in names else ():
            if version.state != manifest.BLOCKED:
                found.setdefault((version.digest, version.sandbox), VerifiedBuild(name, platform, version))
    return list(found.values())


def verify_manifest(repository: Repository, origin: Origin, now: float, trusted: Collection[PublicKey] | None) -> Iterator[str]:
    """The manifest in both places: the same index, not expired, and every shard that it names.

    One of the keys in ``trusted`` must have signed it; None where that cannot be checked.
    """
    index = repository.read(f"{paths.REPOSITORY_MANIFEST}/{manifest.INDEX_NAME}")
    if index is None:
        yield "the repository has no manifest"
        return
    there = origin.read(f"{paths.ORIGIN_MANIFEST}/{manifest.INDEX_NAME}")
    if there != index:
        yield "the origin's manifest is not the repository's; a sync brings it up to date"
    for place, content in (("repository", index), ("origin", there)):
        if trusted is not None and content is not None:
            yield from _signature(place, content, trusted)
    parsed = manifest.Index.parse(manifest.unseal(index)[0])
    if parsed.age(now) != manifest.FRESH:
        yield "the manifest has expired; a sync makes a new one"
    for sha256 in sorted({sha256 for sha256 in parsed.shards if sha256 is not None}):
        name = manifest.shard_name(sha256)
        for place, content in (
            ("repository", repository.read(f"{paths.REPOSITORY_MANIFEST}/{name}")),
            ("origin", origin.read(f"{paths.ORIGIN_MANIFEST}/{name}")),
        ):
            if content is None:
                yield f"the {place} has no {name}, which the manifest names"
            elif hashlib.sha256(content).hexdigest() != sha256:
                yield f"the {place}'s {name} is damaged"


def _signature(place: str, index: bytes, trusted: Collection[PublicKey]) -> Iterator[str]:
    try:
        signing.check(*manifest.unseal(index), trusted)
    except ManifestError:
        yield f"the {place}'s manifest is damaged"
    except PublishedManifestError:
        yield f"the {place}'s manifest is not signed by this publisher's key, nor by one in trusted_keys"


def verify_links(repository: Repository, snapshot: Snapshot) -> Iterator[str]:
    """Every link that a record wants, and none besides. The older tool's absolute links to the same sandbox are as good."""
    found = repository.links()
    wanted = {path: target for record in snapshot.records.values() for path, target in transitions.links(record).items()}
    for path, target in wanted.items():
        absolute = f"/cvmfs/{repository.name}/{target.rpartition('../')[2]}"
        if path not in found:
            yield f"{path}: the link is missing"
        elif found[path] not in {target, absolute}:
            yield f"{path}: the link leads to {found[path]}, not to {target}"
    for path in sorted(found.keys() - wanted.keys()):
        yield f"{path}: no record wants this link"


def verify_catalogs(repository: Repository, snapshot: Snapshot) -> Iterator[str]:
    """The mark that keeps all images out of the repository's root catalog: made with the first one that is not taken over."""
    own = any(build.version.sandbox is not None and build.version.file_index is not None for build in builds(snapshot, ()))
    if own and not repository.exists(f"{paths.IMAGES}/{paths.CATALOG_MARK}"):
        yield f"{paths.IMAGES} has no {paths.CATALOG_MARK}"


def verify_build(repository: Repository, origin: Origin, build: VerifiedBuild) -> Iterator[str]:
    """A build's sandbox against its file index, and its SIF against sha256 and size."""
    label = f"{build.name} {build.platform} {build.version.digest}"  # what block takes
    checks: tuple[Callable[[], list[str]], ...] = (
        lambda: repository.look(lambda: _few(_sandbox(repository, build.version))),
        lambda: _few(_sif(origin, build.version)),  # apart: a publish waits for a look, and makes it begin anew
    )
    for check in checks:
        try:
            for problem in check():
                yield f"{label}: {problem}"
        except (OSError, PublisherError) as error:
            yield f"{label}: cannot be read: {error}"


def _few(problems: Iterator[str]) -> list[str]:
    found, count = [], 0
    for count, problem in enumerate(problems, 1):
        if count <= _SHOWN:
            found.append(problem)
    return found if count <= _SHOWN else [*found, f"and {count - _SHOWN} more"]


def _sandbox(repository: Repository, version: Version) -> Iterator[str]:
    if version.sandbox is None:
        return
    if not repository.exists(version.sandbox):
        yield f"the sandbox {version.sandbox} is missing"
        return
    if version.file_index is None:
        return  # taken over from another tool
    if not repository.exists(f"{version.sandbox}/{paths.CATALOG_MARK}"):
        yield f"the sandbox has no {paths.CATALOG_MARK}"
    try:
        published_index.check(repository, version)
    except PublishedManifestError as error:
        yield error.reason
        return
    yield from differences(published_index.lines(repository, version), str(repository.root / version.sandbox))


def _sif(origin: Origin, version: Version) -> Iterator[str]:
    if version.sif is None:
        return
    size = origin.size(version.sif.path)
    if size is None:
        yield f"the SIF {version.sif.path} is missing"
    elif size != version.sif.size:
        yield f"the SIF {version.sif.path} has {size} bytes, not {version.sif.size}"
    elif origin.sha256(version.sif.path) != version.sif.sha256:
        yield f"the SIF {version.sif.path} is damaged"
