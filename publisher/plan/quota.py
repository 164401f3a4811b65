"""Limits on what one owner's images may use: how many images, and the bytes of their files. Set in publisher.yaml.

    quotas:
      default: {images: 50, size: 500 GB}     # each owner that is not named here
      IceCube: {images: 200, size: 5 TB}
      nobody: {images: 1000}                  # all entries without an owner, together

An owner without a quota of its own and without a default has no limit; neither have entries without an owner if ``nobody`` is
not given.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publisher.contract import units
from publisher.contract.records import CURRENT
from publisher.errors import PublisherError
from publisher.system.yamlfile import YamlProblem, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from publisher.images.reader import Entry
    from publisher.state.snapshot import Snapshot

DEFAULT = "default"
NOBODY = "nobody"
_HINT = "remove some entries, or ask the operator for a larger quota"
_PARSERS = {"images": units.positive_count, "size": units.positive_size}


@dataclass(frozen=True)
class Quota:
    """A limit on the number of images and on the bytes of their unpacked files; None is unlimited."""

    images: int | None = None
    size: int | None = None


def parse_quotas(value: object) -> dict[str, Quota]:
    """Return owner -> quota, from the value of ``quotas`` in publisher.yaml.

    Raises:
        ValueError: the value is not valid; the message says what to write.
    """
    if not isinstance(value, dict) or not all(isinstance(owner, str) for owner in value):
        raise ValueError("write owners with their quotas here, such as default: {images: 50, size: 500 GB}")
    return {owner: _parse_quota(owner, quota) for owner, quota in value.items()}


def _parse_quota(owner: str, value: Any) -> Quota:
    if not isinstance(value, dict) or not value or not _PARSERS.keys() >= value.keys():
        raise ValueError(
            f"the quota of {quoted(owner)} is not valid; write images:, size: or both, such as {{images: 50, size: 500 GB}}"
        )
    try:
        return Quota(**{key: _PARSERS[key](amount) for key, amount in value.items()})
    except ValueError as error:
        raise ValueError(f"the quota of {quoted(owner)}: {error}") from None


def over_quota(entries: Iterable[Entry], sizes: Mapping[str, int], quotas: Mapping[str, Quota]) -> list[YamlProblem]:
    """Return a problem for each exceeded quota, at the line of the first entry beyond it.

    Published images are counted before new ones, and then in the order of the list.

    Args:
        entries: all wanted entries, patterns expanded.
        sizes: CVMFS name -> bytes of the unpacked files that are published; an image that is not published counts as 0.
        quotas: owner, :data:`DEFAULT` or :data:`NOBODY` -> quota.
    """
    problems: dict[str, YamlProblem] = {}
    for entry, reason in _beyond_quota(entries, sizes, quotas):
        problems.setdefault(reason, YamlProblem(entry.line, f"{reason}; {_HINT}"))
    return sorted(problems.values())


def refusals(entries: Iterable[Entry], snapshot: Snapshot, quotas: Mapping[str, Quota]) -> dict[str, PublisherError]:
    """Return CVMFS name -> reason for all entries beyond their owner's quota, counted as in :func:`over_quota`."""
    sizes = {
        name: sum(version.unpacked_size for _, version in record.versions() if version.state == CURRENT)
        for name, record in snapshot.records.items()
    }
    return {entry.name: PublisherError(reason, hint=_HINT) for entry, reason in _beyond_quota(entries, sizes, quotas)}


def _beyond_quota(entries: Iterable[Entry], sizes: Mapping[str, int], quotas: Mapping[str, Quota]) -> Iterator[tuple[Entry, str]]:
    by_owner: dict[str | None, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_owner[entry.owner].append(entry)
    for owner, owned in by_owner.items():
        quota = quotas.get(NOBODY) if owner is None else quotas.get(owner, quotas.get(DEFAULT))
        if quota is not None:
            who = "the entries without an owner" if owner is None else f"the images of {quoted(owner)}"
            ordered = sorted(owned, key=lambda entry: (entry.name not in sizes, entry.line, entry.name))
            yield from _beyond_one_quota(who, ordered, sizes, quota)


def _beyond_one_quota(who: str, entries: Sequence[Entry], sizes: Mapping[str, int], quota: Quota) -> Iterator[tuple[Entry, str]]:
    total = sum(sizes.get(entry.name, 0) for entry in entries)
    used = 0
    for count, entry in enumerate(entries, 1):
        used += sizes.get(entry.name, 0)
        if quota.images is not None and count > quota.images:
            yield entry, f"{who} number {len(entries)}, but the quota is {quota.images}"
        elif quota.size is not None and used > quota.size:
            yield entry, f"{who} use {_format_size(total)}, but the quota is {_format_size(quota.size)}"


def _format_size(size: int) -> str:
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} B"
