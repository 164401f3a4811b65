"""Finds data that the manifest names and that is not there, such as after a backup was restored, and takes it out of the records.

A form (sandbox or SIF) that is missing leaves its version; the plan then sees an image that lacks a wanted form, and builds it
again. So a manifest never goes on naming what does not exist, and what can be had again comes back in the same run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.contract.records import BLOCKED, CURRENT, EXPIRING, Record, Version
from publisher.errors import PublisherError
from publisher.plan.make import MAX_REMOVED_SHARE
from publisher.state import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from publisher.state.snapshot import Snapshot

_FEW = 5
"""Number of images that may lose data without a question, however few are published."""


@dataclass
class MissingData:
    """What is missing.

    Attributes:
        snapshot: the published state without it.
        lines: a line for each version that lacks data, for the operator.
        names: names whose current version on some platform lacks a form.
    """

    snapshot: Snapshot
    lines: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


def find_missing(snapshot: Snapshot, exists: Callable[[str], bool], sifs: Collection[str] | None) -> MissingData:
    """Find versions that name a sandbox or a SIF that is not there.

    Args:
        snapshot: the published state.
        exists: returns whether the repository has a path.
        sifs: names of all SIFs in the origin, None if they are not to be looked at.
    """
    result, changed, unindexed = MissingData(snapshot), {}, 0
    for name, record in snapshot.records.items():
        platforms: dict[str, tuple[Version, ...]] = {}
        for platform, versions in record.platforms.items():
            remaining = []
            for version in versions:
                forms = [] if version.state == BLOCKED else _missing_forms(version, exists, sifs)
                if not forms and version.state != BLOCKED and version.file_index is not None:
                    unindexed += not exists(paths.file_index_path(version.content))
                if forms:
                    result.lines.append(_describe(name, platform, version, forms))
                    if version.state in {CURRENT, EXPIRING}:
                        result.names.add(name)
                remaining += _without(version, forms, exists)
            platforms[platform] = tuple(remaining)
        if platforms != record.platforms:
            kept = {platform: versions for platform, versions in platforms.items() if versions}
            changed[name] = Record(name, record.reference, record.digest, kept, record.rollback)
    if unindexed:
        result.lines.append(f"the file index of {unindexed} version(s) is missing: publisher verify names them")
    result.snapshot = snapshot.with_records(changed)
    return result


def check_share(missing: MissingData, *, allowed: bool) -> None:
    """Raise PublisherError if so much is missing that it is rather a disk that is not mounted, unless that is allowed."""
    published = len(missing.snapshot.records)
    if allowed or len(missing.names) <= max(_FEW, MAX_REMOVED_SHARE * published):
        return
    raise PublisherError(
        f"the data of {len(missing.names)} of {published} published names is missing, such as {missing.lines[0]}; "
        "nothing was changed",
        hint="check that the repository and the origin are mounted and complete; to build all of it again, add --rebuild-missing",
    )


def _missing_forms(version: Version, exists: Callable[[str], bool], sifs: Collection[str] | None) -> list[str]:
    forms = []
    if version.sandbox is not None and not exists(version.sandbox):
        forms.append("sandbox")
    if version.sif is not None and sifs is not None and version.sif.path not in sifs:
        forms.append("sif")
    return forms


def _without(version: Version, forms: Iterable[str], exists: Callable[[str], bool]) -> list[Version]:
    """Return the version without some forms, in a list; an empty list if no form is left."""
    omitted = set(forms)
    if not omitted:
        return [version]
    if not exists(paths.file_index_path(version.content)):
        omitted.add("file_index")
    value = {name: content for name, content in version.to_json().items() if name not in omitted}
    return [Version.from_json(value)] if {"sandbox", "sif"} & value.keys() else []


def _describe(name: str, platform: str, version: Version, forms: Iterable[str]) -> str:
    missing = {"sandbox": f"sandbox {version.sandbox}", "sif": f"SIF {version.sif.path if version.sif else ''}"}
    what = " and ".join(f"the {missing[form]}" for form in forms)
    return f"{name} {platform}: {what} of its {version.state} version {version.digest} is missing"


def sif_names(names: Iterable[str]) -> frozenset[str]:
    """Return the names of SIFs among the names of objects of the origin."""
    return frozenset(name for name in names if name.startswith(f"{paths.SIF_PREFIX}/"))
