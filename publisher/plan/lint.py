"""What is wrong with entries of the list, judged by what their registries say. Pure.

A registry that is down is "could not tell", not "wrong": a stranger's outage turns nobody's pull request red.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from publisher.errors import DeniedError, PublisherError, UnavailableError
from publisher.plan.retention import is_near
from publisher.state import paths as layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from publisher.images.reader import Entry
    from publisher.oci import Image
    from publisher.plan.make import UnlistedPattern
    from publisher.system.yamlfile import YamlProblem


class CheckVerdict(Enum):
    """How an entry was found."""

    FINE = "fine"
    WRONG = "wrong"
    UNKNOWN = "could not tell"


@dataclass(frozen=True)
class CheckedEntry:
    """What was found of one entry.

    Attributes:
        name: its CVMFS name, or the wildcard.
        line: where it stands in the list.
        verdict: how it was found.
        reason: why, one line; empty where it is fine.
        paths: where it would be published, below ``/cvmfs/<repository>``.
        size: bytes of its layers, compressed, all platforms together.
        platforms: for which it would be.
        expires: its last day, where that is near; else None.
    """

    name: str
    line: int
    verdict: CheckVerdict
    reason: str = ""
    paths: tuple[str, ...] = ()
    size: int = 0
    platforms: tuple[str, ...] = ()
    expires: date | None = None


def judge(entry: Entry, found: Sequence[Image] | PublisherError, largest: int, today: date | None = None) -> CheckedEntry:
    """The verdict on an entry.

    Args:
        entry: the entry.
        found: an image for each of its platforms, as the registry gives them to everybody; or the reason why not.
        largest: bytes that an image may have, if its entry does not say less.
        today: a last day that is near is told; none is when None.
    """
    if isinstance(found, PublisherError):
        verdict = CheckVerdict.UNKNOWN if isinstance(found, UnavailableError) else CheckVerdict.WRONG
        return CheckedEntry(entry.name, entry.line, verdict, _reason(found))
    size = sum(layer.size for image in found for layer in image.manifest.layers)
    allowed = min(entry.max_size or largest, largest)
    heaviest = max(sum(layer.size for layer in image.manifest.layers) for image in found)
    if heaviest > allowed:
        reason = f"its layers have {heaviest} bytes compressed, {allowed} are allowed unpacked"
        return CheckedEntry(entry.name, entry.line, CheckVerdict.WRONG, reason, size=size)
    platforms = tuple(layout.platform_key(platform) for platform in entry.platforms)
    paths = tuple(layout.link_paths(entry.name, platforms)) if "sandbox" in entry.formats else ()
    near = entry.expires is not None and today is not None and is_near(entry.expires, today)
    return CheckedEntry(entry.name, entry.line, CheckVerdict.FINE, "", paths, size, platforms, entry.expires if near else None)


def judge_wildcard(wildcard: str, line: int, names: Sequence[str]) -> CheckedEntry:
    """The verdict on a wildcard whose tags are known: ``names`` are those it comes to."""
    if not names:
        return CheckedEntry(wildcard, line, CheckVerdict.WRONG, "it matches none of the tags that there are")
    return CheckedEntry(wildcard, line, CheckVerdict.FINE, f"{len(names)} image(s), the newest {names[0]}", tuple(names))


def judge_unlisted(unlisted: UnlistedPattern, line: int) -> CheckedEntry:
    """The verdict on a wildcard whose tags could not be listed."""
    verdict = CheckVerdict.UNKNOWN if isinstance(unlisted.error, UnavailableError) else CheckVerdict.WRONG
    return CheckedEntry(unlisted.wildcard, line, verdict, _reason(unlisted.error))


def judge_quota(problem: YamlProblem) -> CheckedEntry:
    """An owner's list of images that is longer than his quota."""
    return CheckedEntry("quota", problem.line, CheckVerdict.WRONG, problem.text)


def counts(checked: Sequence[CheckedEntry]) -> Mapping[CheckVerdict, int]:
    """How many were found how."""
    return {verdict: sum(one.verdict is verdict for one in checked) for verdict in CheckVerdict}


def _reason(error: PublisherError) -> str:
    if isinstance(error, DeniedError):
        return f"it cannot be pulled without credentials: {error.reason}"
    return error.reason if error.hint is None else f"{error.reason} ({error.hint})"
