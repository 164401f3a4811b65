"""Judges the entries of the list by what their registries say. Pure.

A registry that is down makes an entry UNKNOWN, not WRONG: a third party's outage must not fail a pull request.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.errors import DeniedError, PublisherError, UnavailableError, UnknownHostError
from publisher.images import web_pages
from publisher.images.sif_sources import is_url
from publisher.plan.model import with_hint
from publisher.plan.retention import expires_soon
from publisher.state import paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from publisher.images.reader import Entry
    from publisher.oci import Image
    from publisher.plan.model import UnlistedPattern
    from publisher.system.yamlfile import YamlProblem


class CheckVerdict(Enum):
    """The verdict on an entry of the list."""

    FINE = "fine"
    WRONG = "wrong"
    UNKNOWN = "could not tell"


@dataclass(frozen=True)
class CheckedEntry:
    """An entry of the list with the verdict on it.

    Attributes:
        name: the CVMFS name, or the pattern.
        line: line number in the list.
        verdict: the verdict.
        reason: why, one line; may be empty where the entry is fine.
        paths: where the image would be published, below ``/cvmfs/<repository>``.
        size: compressed bytes of the layers of all platforms together.
        platforms: keys of the platforms that would be published.
        expires: the last day of the entry if it is near, else None.
    """

    name: str
    line: int
    verdict: CheckVerdict
    reason: str = ""
    paths: tuple[str, ...] = ()
    size: int = 0
    platforms: tuple[str, ...] = ()
    expires: date | None = None


def judge(entry: Entry, answer: Sequence[Image] | PublisherError, max_size: int, today: date | None = None) -> CheckedEntry:
    """Return the verdict on an entry.

    Args:
        entry: the entry.
        answer: an image for each of its platforms, as the registry serves them anonymously; or why it does not.
        max_size: bytes that an image may have unpacked, unless its entry allows fewer.
        today: the day, to report that an entry expires soon; None reports nothing.
    """
    if entry.expires is not None and today is not None and entry.expires < today:
        reason = f"it expired on {entry.expires}, so it is not published; set a later date, or remove the entry"
        return CheckedEntry(entry.name, entry.line, CheckVerdict.WRONG, reason)
    if isinstance(answer, PublisherError):
        return _judge_error(
            entry.name,
            entry.line,
            entry.reference.registry,
            answer,
            private=entry.private,
            is_public_only=is_url(entry.reference),
        )
    sizes = [sum(layer.size for layer in image.manifest.layers) for image in answer]
    allowed = min(entry.max_size or max_size, max_size)
    if max(sizes) > allowed:
        reason = f"its layers have {format_size(max(sizes))} compressed, but only {format_size(allowed)} are allowed unpacked"
        return CheckedEntry(entry.name, entry.line, CheckVerdict.WRONG, reason, size=sum(sizes))
    platforms = tuple(paths.platform_key(platform) for platform in entry.platforms)
    links = tuple(paths.link_paths(entry.name, platforms)) if "sandbox" in entry.formats else ()
    near = entry.expires is not None and today is not None and expires_soon(entry.expires, today)
    expires = entry.expires if near else None
    return CheckedEntry(entry.name, entry.line, CheckVerdict.FINE, "", links, sum(sizes), platforms, expires)


def judge_pattern(pattern: str, line: int, names: Sequence[str]) -> CheckedEntry:
    """Return the verdict on a pattern with known tags; ``names`` are the CVMFS names that it expands to, the newest first."""
    if not names:
        return CheckedEntry(pattern, line, CheckVerdict.WRONG, "it matches none of the repository's tags")
    return CheckedEntry(pattern, line, CheckVerdict.FINE, f"{len(names)} image(s), the newest is {names[0]}", tuple(names))


def judge_unlisted(unlisted: UnlistedPattern, line: int, registry: str) -> CheckedEntry:
    """Return the verdict on a pattern of which the tags could not be listed; ``registry`` is the registry in the list."""
    return _judge_error(unlisted.text, line, registry, unlisted.error)


def judge_quota(problem: YamlProblem) -> CheckedEntry:
    """Return the verdict on an owner's entries that exceed the owner's quota."""
    return CheckedEntry("quota", problem.line, CheckVerdict.WRONG, problem.text)


def count_verdicts(checked: Sequence[CheckedEntry]) -> Mapping[CheckVerdict, int]:
    """Return verdict -> number of entries with it, for every verdict."""
    return {verdict: sum(entry.verdict is verdict for entry in checked) for verdict in CheckVerdict}


def _judge_error(
    name: str, line: int, registry: str, error: PublisherError, *, private: bool = False, is_public_only: bool = False
) -> CheckedEntry:
    """Return the verdict on what a registry has no image for, or a server no SIF, which must be public if ``is_public_only``."""
    if isinstance(error, UnknownHostError) and error.host.partition(":")[0] == registry.partition(":")[0]:
        similar = web_pages.similar_registry(error.host)
        advice = "correct the name of the registry" if similar is None else f"did you mean {similar}?"
        return CheckedEntry(name, line, CheckVerdict.WRONG, f"{error.reason}; {advice}")
    if isinstance(error, UnavailableError):
        return CheckedEntry(name, line, CheckVerdict.UNKNOWN, with_hint(error.reason, error))
    if isinstance(error, DeniedError) and is_public_only:
        return CheckedEntry(name, line, CheckVerdict.WRONG, f"{error.reason} (a SIF at a URL must be readable by everybody)")
    if isinstance(error, DeniedError):
        entry = "its entry says private: allowed" if private else "its entry needs private: allowed"
        private_reason = (
            f"it does not exist, or cannot be pulled without credentials: {error.reason} (check the name, or make it public; to "
            f"publish a private image to everybody, {entry}, and the operator's settings need private_images: allowed)"
        )
        return CheckedEntry(name, line, CheckVerdict.WRONG, private_reason)
    return CheckedEntry(name, line, CheckVerdict.WRONG, with_hint(error.reason, error))
