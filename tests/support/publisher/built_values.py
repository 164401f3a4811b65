"""Entries, resolved references and built images as values, for tests that need no registry and no builder."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher.chunks.cutter import cut_file
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

    from publisher.contract.records import Version
    from publisher.plan.model import Plan, PlanItem, PlatformTarget
    from publisher.state.snapshot import Snapshot

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


def digest(text: str) -> str:
    """Return the digest of a text."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def entry(
    reference: str, platforms: Iterable[Platform] = (AMD64,), formats: Iterable[str] = ("sandbox", "sif"), **more: object
) -> Entry:
    """Return an entry of the list with the default CVMFS name."""
    parsed = parse(reference)
    name = f"{parsed.repository}:{parsed.tag}"
    return Entry(name, parsed, tuple(platforms), frozenset(formats), **more)  # type: ignore[arg-type]  # fields of Entry


def answer(text: str, platforms: Iterable[Platform] = (AMD64,), content: str | None = None) -> ResolvedReference:
    """Return the resolved reference of an image manifest ``text``; with ``content`` its configs are known, and name that."""
    manifests = {platform: digest(f"{text} {platform}") for platform in platforms}
    configs = {} if content is None else {platform: digest(f"config of {content} {platform}") for platform in manifests}
    return ResolvedReference(digest(text), manifests, tuple(map(str, manifests)), configs=configs)


def built(text: str, where: Path | None = None) -> BuiltImage:
    """Return a build with the content ``text``; its SIF and file index are written into ``where``, if given."""
    content = text.encode()
    sha256 = hashlib.sha256(content).hexdigest()
    paths = [] if where is None else [where / f"{sha256}.sif", where / f"{sha256}.files"]
    for path in paths:
        path.write_bytes(content)
    sif, files = paths or (None, None)
    return BuiltImage(sif, sha256, len(content), 10 * len(content), 3, files, "ran", {"mksquashfs": "4.5.1"})  # type: ignore[arg-type]  # no file: values only


def with_table(build: BuiltImage) -> BuiltImage:
    """Return a build with the chunk table of its SIF, which is written beside it."""
    table = cut_file(build.sif)[1]
    assert table is not None
    path = build.sif.with_suffix(".chunks")
    path.write_bytes(table)
    return replace(build, chunk_table=path, chunks={"sha256": hashlib.sha256(table).hexdigest(), "size": len(table)})


GRACE = 1000
"""Seconds that names which leave can still be used."""


def carried_out(plan: Plan, snapshot: Snapshot, now: int) -> Snapshot:
    """Return the published state after a plan, without carrying it out."""
    changed = {}
    for item in plan.work:
        current = {layout.platform_key(target.platform): _version(item, target, now) for target in item.targets}
        name = item.entry.name
        record = transitions.set_current(snapshot.records.get(name), tag_reference(item.entry), item.digest, current, name)
        changed[name] = transitions.expire(record, now, now + GRACE, item.leaving)
    changed |= {one.name: transitions.expire(snapshot.records[one.name], now, now + GRACE) for one in plan.leaving}
    return snapshot.with_records(changed)


def _version(item: PlanItem, target: PlatformTarget, now: int) -> Version:
    if target.published is None:
        version = transitions.make_version(target.digest, built(target.content), item.entry.formats, now, config=target.config)
    else:
        version = transitions.reuse(target.published, target.digest, item.entry.formats, now)
    found = target.provenance
    if found is None:
        return version
    return transitions.with_provenance(version, [one.to_json() for one in found.attached], found.signed)
