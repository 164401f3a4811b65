"""Taking a repository over from the older tool (cvmfs-singularity-sync): its links and data become records of the manifest.

That tool made ``<name>:<tag>`` absolute links to ``/cvmfs/<repository>/.images/<2>/<62>``, the sha256 of the layers' digests
written one after another (64 hex each); where the registry had an index, to ``.images/sha256:<2>/<62>`` of the index. Both can
be computed from what the registry says now, so what is still current is not built again. What is not, or is in no list, is
taken in too, under its old hash: names go on meaning it until a sync replaces it or lets it leave, and its data is cleared
away like any other. Only the manifest is written: data and links stay as they are, so the older tool could go on with them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from publisher.contract.records import Record, Version
from publisher.errors import PublisherError, UnavailableError
from publisher.plan.model import tag_reference
from publisher.state.paths import DEFAULT_ARCHITECTURE, IMAGES, platform_key
from publisher.state.transitions import ADOPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from publisher.images.reader import Entry
    from publisher.oci import ImageManifest, Platform
    from publisher.plan.model import ResolvedReference, UnlistedPattern

UNKNOWN_SOURCE = "unknown.invalid"
"""The registry of a name that is in no list: the older tool's links do not say it (RFC 6761: nobody's)."""
_DATA = re.compile(r"\.images/(?:sha256:)?([0-9a-f]{2})/([0-9a-f]{62})", re.ASCII)


class LinkVerdict(Enum):
    """How a link of the older tool was found."""

    CURRENT = "current"
    OUTDATED = "not current"
    UNLISTED = "in no list"
    UNKNOWN = "could not tell"
    DANGLING = "leads nowhere"


@dataclass(frozen=True)
class OldLink:
    """A link of the older tool: the CVMFS name, and the path of the sandbox in the repository."""

    name: str
    sandbox: str

    @property
    def digest(self) -> str:
        """Its hash, as the digest that stands for what its manifest's was."""
        return "sha256:" + "".join(_DATA.fullmatch(self.sandbox).groups())  # type: ignore[union-attr]  # checked by old_links


@dataclass(frozen=True)
class JudgedLink:
    """The verdict on a link; ``record`` is what it becomes, None where nobody can tell now."""

    link: OldLink
    verdict: LinkVerdict
    reason: str = ""
    record: Record | None = None


@dataclass
class Adoption:
    """What an adoption found: how many links of each kind, and a line for each that is not simply current."""

    counts: Counter[LinkVerdict] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)

    def add(self, judged: Iterable[JudgedLink]) -> None:
        """Count them."""
        for one in judged:
            self.counts[one.verdict] += 1
            if one.verdict is not LinkVerdict.CURRENT:
                self.lines.append(f"{one.verdict.value}: {one.link.name}{f': {one.reason}' if one.reason else ''}")

    @property
    def total(self) -> str:
        """For people."""
        return (
            ", ".join(f"{self.counts[verdict]} {verdict.value}" for verdict in LinkVerdict if self.counts[verdict]) or "no links"
        )


def old_links(links: Mapping[str, str], repository: str) -> list[OldLink]:
    """The older tool's among a repository's links (path -> target): absolute ones, and those that an undone adoption left."""
    root = f"/cvmfs/{repository}/"
    pairs = (
        (name, target.removeprefix(root) if target.startswith("/") else os.path.normpath(f"{name}/../{target}"))
        for name, target in links.items()
    )
    return [OldLink(name, path) for name, path in pairs if _DATA.fullmatch(path) and ":" in name and not name.startswith(".")]


def old_paths(image: ImageManifest, index: str | None) -> frozenset[str]:
    """The sandboxes that the older tool could have made of an image.

    Args:
        image: the manifest of one platform.
        index: digest of the index that its tag means, None where the tag means the image itself.
    """
    if index is not None:
        return frozenset([_split(index, "sha256:")])
    joined = "".join(layer.digest.removeprefix("sha256:") for layer in image.layers)
    return frozenset([_split(hashlib.sha256(joined.encode()).hexdigest())])


def judge(
    link: OldLink,
    entry: Entry,
    answer: ResolvedReference | PublisherError,
    images: Mapping[Platform, ImageManifest] | PublisherError,
    now: int,
) -> JudgedLink:
    """The verdict on a link whose name the list has.

    Args:
        link: the link.
        entry: the list's entry of that name.
        answer: what the registry says of its reference.
        images: the manifests of its platforms.
        now: seconds since the epoch.
    """
    if isinstance(answer, PublisherError):
        return _untold(link, entry, answer, now)
    if isinstance(images, PublisherError):
        return _untold(link, entry, images, now)
    for platform, image in images.items():
        # of an index the older tool, on its amd64 host, took the image for that
        index = answer.digest if image.digest != answer.digest else None
        fits = index is None or platform_key(platform) == DEFAULT_ARCHITECTURE or len(images) == 1
        if fits and link.sandbox in old_paths(image, index):
            version = _version(image.digest, link.sandbox, now, "as an index" if index else "by its layers")
            return JudgedLink(
                link,
                LinkVerdict.CURRENT,
                "",
                Record(link.name, tag_reference(entry), answer.digest, {platform_key(platform): [version]}),
            )
    return JudgedLink(link, LinkVerdict.OUTDATED, "the registry has another build", _outdated(link, entry, now))


def judge_unlisted(link: OldLink, unlisted: Iterable[UnlistedPattern], now: int) -> JudgedLink:
    """The verdict on a link whose name no entry has; ``unlisted`` are wildcards whose tags nobody knows now."""
    for one in unlisted:
        if one.covers(link.name):
            return JudgedLink(link, LinkVerdict.UNKNOWN, f"the tags of {one.wildcard} cannot be listed")
    return JudgedLink(link, LinkVerdict.UNLISTED, "", _outdated(link, None, now))


def taken_anyway(judged: JudgedLink, entry: Entry | None, now: int) -> JudgedLink:
    """A link that nobody can tell anything about, taken in under its old hash."""
    return JudgedLink(judged.link, judged.verdict, judged.reason, _outdated(judged.link, entry, now))


def _untold(link: OldLink, entry: Entry, error: PublisherError, now: int) -> JudgedLink:
    """Of a registry that is down nobody can tell; one that says no has said that the link is not current."""
    if isinstance(error, UnavailableError):
        return JudgedLink(link, LinkVerdict.UNKNOWN, str(error))
    return JudgedLink(link, LinkVerdict.OUTDATED, str(error), _outdated(link, entry, now))


def _outdated(link: OldLink, entry: Entry | None, now: int) -> Record:
    source = f"{UNKNOWN_SOURCE}/{link.name}" if entry is None else tag_reference(entry)
    platform = DEFAULT_ARCHITECTURE if entry is None else platform_key(entry.platforms[0])
    version = _version(link.digest, link.sandbox, now, "by its old hash alone")
    return Record(link.name, source, link.digest, {platform: [version]})


def _version(digest: str, sandbox: str, now: int, how: str) -> Version:
    return Version(digest, sandbox=sandbox, sif=None, published=now, notes={ADOPTED: how})


def _split(digest: str, prefix: str = "") -> str:
    content = digest.removeprefix("sha256:")
    return f"{IMAGES}/{prefix}{content[:2]}/{content[2:]}"
