"""Entries, answers and built images as values, for tests of what happens between registry and manifest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from publisher.contract.reference import parse
from publisher.images.reader import Entry
from publisher.oci import Platform
from publisher.plan.model import ResolvedReference, tag_reference
from publisher.state import paths as layout
from publisher.state import transitions
from publisher.state.built import BuiltImage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from publisher.plan.model import Plan
    from publisher.state.snapshot import Snapshot

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


def digest(text: str) -> str:
    """A digest that nothing else has."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def entry(
    reference: str, platforms: Iterable[Platform] = (AMD64,), formats: Iterable[str] = ("sandbox", "sif"), **more: object
) -> Entry:
    """An entry of the list, named as by default."""
    parsed = parse(reference)
    name = f"{parsed.repository}:{parsed.tag}"
    return Entry(name, parsed, tuple(platforms), frozenset(formats), **more)  # type: ignore[arg-type]  # fields of Entry


def answer(text: str, platforms: Iterable[Platform] = (AMD64,)) -> ResolvedReference:
    """What a registry says of an image whose content is ``text``."""
    manifests = {platform: digest(f"{text} {platform}") for platform in platforms}
    return ResolvedReference(digest(text), manifests, tuple(map(str, manifests)))


def built(text: str, where: Path | None = None) -> BuiltImage:
    """A SIF whose content is ``text``; a file of that content in ``where``, if given."""
    content = text.encode()
    sha256 = hashlib.sha256(content).hexdigest()
    paths = [] if where is None else [where / f"{sha256}.sif", where / f"{sha256}.files"]
    for path in paths:
        path.write_bytes(content)
    sif, files = paths or (None, None)
    return BuiltImage(sif, sha256, len(content), 10 * len(content), 3, files, "ran", {"mksquashfs": "4.5.1"})  # type: ignore[arg-type]  # no file: values only


GRACE = 1000
"""Seconds that names which leave are still used."""


def carried_out(plan: Plan, snapshot: Snapshot, now: int) -> Snapshot:
    """The catalog after a plan, without doing any of it."""
    changed = {}
    for item in plan.work:
        current = {
            layout.platform_key(target.platform): (
                transitions.built_version(target.digest, built(target.digest), item.entry.formats, now)
                if target.published is None
                else transitions.renewed_version(target.published, item.entry.formats, now)
            )
            for target in item.targets
        }
        name = item.entry.name
        record = transitions.succeeded(snapshot.records.get(name), tag_reference(item.entry), item.digest, current, name)
        changed[name] = transitions.leaving(record, now, now + GRACE, item.leaving)
    changed |= {one.name: transitions.leaving(snapshot.records[one.name], now, now + GRACE) for one in plan.leaving}
    return snapshot.with_records(changed)
