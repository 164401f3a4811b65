"""What one owner's images may take: how many they are, and the bytes of their files. The operator's word, in publisher.yaml.

    quotas:
      default: {images: 50, size: 500 GB}     # each owner that is not named here
      IceCube: {images: 200, size: 5 TB}
      nobody: {images: 1000}                  # all entries without an owner, together

Who has no quota, neither by name nor by default, may take what he likes; so may ``nobody`` without a line of its own.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publisher.contract import manifest
from publisher.errors import PublisherError
from publisher.system import quantities
from publisher.system.yamlfile import YamlProblem, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from publisher.images.reader import Entry
    from publisher.state.snapshot import Snapshot

DEFAULT = "default"
NOBODY = "nobody"
_INSTEAD = "take some out, or ask the operator for more"
_KEYS = {"images": quantities.whole, "size": quantities.size}


@dataclass(frozen=True)
class Quota:
    """How many images, and how many bytes of unpacked files; None for as many as there are."""

    images: int | None = None
    size: int | None = None


def quotas(value: object) -> dict[str, Quota]:
    """Quotas by owner, as publisher.yaml has them.

    Raises:
        ValueError: they are none; says what to write.
    """
    if not isinstance(value, dict) or not all(isinstance(owner, str) for owner in value):
        raise ValueError("owners with their quotas are expected here, such as default: {images: 50, size: 500 GB}")
    return {owner: _quota(owner, given) for owner, given in value.items()}


def _quota(owner: str, given: Any) -> Quota:
    if not isinstance(given, dict) or not given or not _KEYS.keys() >= given.keys():
        raise ValueError(
            f"the quota of {quoted(owner)} is none; write images:, size: or both, such as {{images: 50, size: 500 GB}}"
        )
    try:
        return Quota(**{key: _KEYS[key](amount) for key, amount in given.items()})
    except ValueError as error:
        raise ValueError(f"the quota of {quoted(owner)}: {error}") from None


def over_quota(entries: Iterable[Entry], sizes: Mapping[str, int], allowed: Mapping[str, Quota]) -> list[YamlProblem]:
    """Whose images are too many or too large; one problem for each, at the line of the first entry that is too much.

    What is published comes before what is new, and then what stands higher in the list.

    Args:
        entries: all that is wanted, wildcards expanded.
        sizes: CVMFS name -> bytes of the unpacked files of what is published; what is not yet takes no room.
        allowed: owner, :data:`DEFAULT` or :data:`NOBODY` -> quota.
    """
    first: dict[str, YamlProblem] = {}
    for entry, why in _beyond(entries, sizes, allowed):
        first.setdefault(why, YamlProblem(entry.line, f"{why}; {_INSTEAD}"))
    return sorted(first.values())


def refused(entries: Iterable[Entry], snapshot: Snapshot, allowed: Mapping[str, Quota]) -> dict[str, PublisherError]:
    """The names of all entries that are too much, as :func:`over_quota` counts, each with the reason."""
    sizes = {
        name: sum(version.unpacked_size for _, version in record.versions() if version.state == manifest.CURRENT)
        for name, record in snapshot.records.items()
    }
    return {entry.name: PublisherError(why, hint=_INSTEAD) for entry, why in _beyond(entries, sizes, allowed)}


def _beyond(entries: Iterable[Entry], sizes: Mapping[str, int], allowed: Mapping[str, Quota]) -> Iterator[tuple[Entry, str]]:
    owned: dict[str | None, list[Entry]] = defaultdict(list)
    for entry in entries:
        owned[entry.owner].append(entry)
    for owner, theirs in owned.items():
        quota = allowed.get(NOBODY) if owner is None else allowed.get(owner, allowed.get(DEFAULT))
        if quota is not None:
            who = "the entries without an owner" if owner is None else f"the images of {quoted(owner)}"
            ordered = sorted(theirs, key=lambda entry: (entry.name not in sizes, entry.line, entry.name))
            yield from _beyond_one(who, ordered, sizes, quota)


def _beyond_one(who: str, entries: Sequence[Entry], sizes: Mapping[str, int], quota: Quota) -> Iterator[tuple[Entry, str]]:
    whole = sum(sizes.get(entry.name, 0) for entry in entries)
    total = 0
    for count, entry in enumerate(entries, 1):
        total += sizes.get(entry.name, 0)
        if quota.images is not None and count > quota.images:
            yield entry, f"{who} are {len(entries)}, and their quota is {quota.images}"
        elif quota.size is not None and total > quota.size:
            yield entry, f"{who} have {_shown(whole)}, and their quota is {_shown(quota.size)}"


def _shown(size: int) -> str:
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} B"
