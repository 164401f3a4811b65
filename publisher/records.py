"""What a manifest's record becomes when its image is published. Pure: values in, values out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher import layout
from publisher.resolver.manifest import CURRENT, EXPIRING, SUPERSEDED, Record, Sif, Version

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from publisher.builders import BuiltImage


def built_version(manifest: str, built: BuiltImage, formats: Collection[str], now: int, file_index: str | None = None) -> Version:
    """The version of a platform manifest's digest that was just built, in the wanted forms (``sandbox``, ``sif``).

    ``file_index`` is the sha256 of its file index (64 hex), None where it is not published.
    """
    return Version(
        manifest,
        sandbox=layout.sandbox_path(manifest) if "sandbox" in formats else None,
        sif=Sif(layout.sif_path(built.sha256), built.sha256, built.size) if "sif" in formats else None,
        published=now,
        unpacked_size=built.unpacked_size,
        files=built.files,
        file_index=file_index,
        test=built.test,
        tools=built.tools,
        notes=built.notes,
    )


def renewed_version(version: Version, formats: Collection[str], now: int) -> Version:
    """A published version, current from now on and in the wanted forms."""
    value = version.to_json() | {"state": CURRENT, "since": now}
    left_out = {"until", "reason"} | ({"sandbox", "sif"} - set(formats))
    return Version.from_json({name: content for name, content in value.items() if name not in left_out})


def succeeded(before: Record | None, source: str, digest: str, current: Mapping[str, Version], record_name: str) -> Record:
    """A name's record with new current versions; what was current is superseded, and other platforms stay.

    Args:
        before: the record so far, None for a new name.
        source: where the image comes from.
        digest: what the source's tag means.
        current: platform's key -> its new version; the time its ``since`` says is when the older ones were superseded.
        record_name: the CVMFS name.
    """
    platforms = dict(before.platforms) if before is not None else {}
    for platform, version in current.items():
        platforms[platform] = (version, *_older(platforms.get(platform, ()), version))
    return Record(record_name, source, digest, platforms)


def leaving(record: Record, now: int, until: int) -> Record:
    """A record whose name leaves: its current versions are used until ``until`` (seconds since the epoch), and then no more."""
    platforms = {
        platform: tuple(_in_state(version, EXPIRING, now, until) if version.state == CURRENT else version for version in found)
        for platform, found in record.platforms.items()
    }
    return Record(record.name, record.source, record.digest, platforms)


def _older(versions: tuple[Version, ...], current: Version) -> tuple[Version, ...]:
    older = (version for version in versions if version.manifest != current.manifest)
    return tuple(
        _in_state(version, SUPERSEDED, current.since) if version.state in {CURRENT, EXPIRING} else version for version in older
    )


def _in_state(version: Version, state: str, since: int, until: int | None = None) -> Version:
    value = {**version.to_json(), "state": state, "since": since}
    value.pop("until", None)
    return Version.from_json(value if until is None else {**value, "until": until})
