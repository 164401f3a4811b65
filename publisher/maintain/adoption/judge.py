"""Verdicts on the links of the older tool (cvmfs-singularity-sync), and the manifest records that they become.

The older tool made ``<name>:<tag>`` an absolute link to ``/cvmfs/<repository>/.images/<2>/<62>``. The hex digits are the sha256
of the layers' digests, concatenated as 64 hex digits each; if the registry had an image index, the link goes to
``.images/sha256:<2>/<62>`` with the digest of the index. Both can be computed from what the registry has now, so an image that
is still current is not built again. An image that is outdated or not listed is adopted under its old hash: its name keeps it
until a sync replaces or delists it, and garbage collection removes its data like any other. An adoption writes the manifest
only; data and links stay as they are, so that the older tool can still use them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from publisher.contract.records import ADOPTED, Record, Version
from publisher.errors import PublisherError, UnavailableError
from publisher.plan.model import tag_reference
from publisher.state.paths import DEFAULT_ARCHITECTURE, IMAGES, platform_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from publisher.images.reader import Entry
    from publisher.oci import ImageManifest, Platform
    from publisher.plan.model import ResolvedReference, UnlistedPattern

UNKNOWN_SOURCE = "unknown.invalid"
"""Registry in the reference of a name that is not in the image list: links do not record it (reserved by RFC 6761)."""
_DATA = re.compile(r"\.images/(?:sha256:)?([0-9a-f]{2})/([0-9a-f]{62})", re.ASCII)


class LinkVerdict(Enum):
    """How a link of the older tool compares with the registry and the image list."""

    CURRENT = "current"
    OUTDATED = "not current"
    UNLISTED = "not in the list"
    UNKNOWN = "could not tell"
    DANGLING = "dangling"


@dataclass(frozen=True)
class OldLink:
    """A link of the older tool.

    Attributes:
        name: the CVMFS name.
        sandbox: path of the sandbox in the repository.
    """

    name: str
    sandbox: str

    @property
    def digest(self) -> str:
        """Return the hash in the sandbox's path as a digest, which stands in for the unknown digest of the image manifest."""
        return "sha256:" + "".join(_DATA.fullmatch(self.sandbox).groups())  # type: ignore[union-attr]  # checked by find_old_links


@dataclass(frozen=True)
class JudgedLink:
    """The verdict on a link.

    Attributes:
        link: the link.
        verdict: the verdict.
        reason: why; may be empty.
        record: the manifest record that the link becomes; None if it is not adopted.
    """

    link: OldLink
    verdict: LinkVerdict
    reason: str = ""
    record: Record | None = None


@dataclass
class AdoptionReport:
    """The result of an adoption.

    Attributes:
        counts: number of links with each verdict.
        lines: a line for each link that is not current.
    """

    counts: Counter[LinkVerdict] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)

    def add(self, judged: Iterable[JudgedLink]) -> None:
        """Count links, and describe those that are not current."""
        for link in judged:
            self.counts[link.verdict] += 1
            if link.verdict is not LinkVerdict.CURRENT:
                self.lines.append(f"{link.verdict.value}: {link.link.name}{f': {link.reason}' if link.reason else ''}")

    @property
    def total(self) -> str:
        """Return the number of links with each verdict, as text for the operator."""
        return (
            ", ".join(f"{self.counts[verdict]} {verdict.value}" for verdict in LinkVerdict if self.counts[verdict]) or "no links"
        )


def find_old_links(links: Mapping[str, str], repository: str) -> list[OldLink]:
    """Return the older tool's links: its absolute ones, and the relative ones that an undone adoption has set.

    Args:
        links: all links of the repository, path -> target.
        repository: name of the repository.
    """
    root = f"/cvmfs/{repository}/"
    pairs = (
        (name, target.removeprefix(root) if target.startswith("/") else os.path.normpath(f"{name}/../{target}"))
        for name, target in links.items()
    )
    return [OldLink(name, path) for name, path in pairs if _DATA.fullmatch(path) and ":" in name and not name.startswith(".")]


def old_sandbox_path(image: ImageManifest, index: str | None) -> str:
    """Return the path in the repository at which the older tool stored an image.

    Args:
        image: the image manifest of one platform.
        index: digest of the image index that the tag stands for; None if the tag stands for the image itself.
    """
    if index is not None:
        return _image_path(index, "sha256:")
    layers = "".join(layer.digest.removeprefix("sha256:") for layer in image.layers)
    return _image_path(hashlib.sha256(layers.encode()).hexdigest())


def judge_listed(
    link: OldLink,
    entry: Entry,
    answer: ResolvedReference | PublisherError,
    images: Mapping[Platform, ImageManifest] | PublisherError,
    now: int,
) -> JudgedLink:
    """Return the verdict on a link with a name of the image list.

    Args:
        link: the link.
        entry: the entry of the image list with that name.
        answer: the entry's resolved reference, or the registry's error.
        images: the image manifests of its platforms, or the registry's error.
        now: seconds since the epoch.
    """
    if isinstance(answer, PublisherError):
        return _judge_failed(link, entry, answer, now)
    if isinstance(images, PublisherError):
        return _judge_failed(link, entry, images, now)
    for platform, image in images.items():
        # the older tool ran on amd64 and chose that platform of an image index
        index = answer.digest if image.digest != answer.digest else None
        fits = index is None or platform_key(platform) == DEFAULT_ARCHITECTURE or len(images) == 1
        if fits and link.sandbox == old_sandbox_path(image, index):
            version = _version(image.digest, link.sandbox, now, "as an index" if index else "by its layers")
            return JudgedLink(
                link,
                LinkVerdict.CURRENT,
                "",
                Record(link.name, tag_reference(entry), answer.digest, {platform_key(platform): [version]}),
            )
    return JudgedLink(link, LinkVerdict.OUTDATED, "the registry has a different build", _outdated(link, entry, now))


def judge_unlisted(link: OldLink, unlisted: Iterable[UnlistedPattern], now: int) -> JudgedLink:
    """Return the verdict on a link with a name that no entry has; ``unlisted`` are patterns of which the tags are unknown."""
    for pattern in unlisted:
        if pattern.covers(link.name):
            return JudgedLink(link, LinkVerdict.UNKNOWN, f"the tags of {pattern.text} cannot be listed")
    return JudgedLink(link, LinkVerdict.UNLISTED, "", _outdated(link, None, now))


def adopt_unresolved(judged: JudgedLink, entry: Entry | None, now: int) -> JudgedLink:
    """Return a link that could not be judged with a record under its old hash, for ``publisher adopt --anyway``."""
    return JudgedLink(judged.link, judged.verdict, judged.reason, _outdated(judged.link, entry, now))


def _judge_failed(link: OldLink, entry: Entry, error: PublisherError, now: int) -> JudgedLink:
    """Return UNKNOWN if the registry is unavailable; OUTDATED if it denies the image or does not have it."""
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


def _image_path(digest: str, prefix: str = "") -> str:
    content = digest.removeprefix("sha256:")
    return f"{IMAGES}/{prefix}{content[:2]}/{content[2:]}"
