"""Renders what is published under a name, as text and as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.state import paths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.contract.records import Record, Version
    from publisher.maintain.scanner import ScanResult


def status_lines(record: Record, repository: str, scans: Mapping[str, ScanResult] | None = None) -> list[str]:
    """Return a record as text; ``repository`` is the repository's name, ``scans`` has the results of scans by digest."""
    lines = [record.name, f"  reference {record.reference}", f"  digest    {record.digest}"]
    if record.rollback is not None:
        when = format_time(record.rollback["since"])
        lines.append(f"  pinned    rolled back on {when}; to return: publisher rollback --undo {record.name}")
    for platform, versions in record.platforms.items():
        for number, version in enumerate(versions):
            lines += _version_lines(platform, version, repository, is_current=number == 0)
            scan = (scans or {}).get(version.digest)
            if scan is not None:
                lines.append(f"    scan      {scan.summary()} ({scan.scanner}, {format_time(scan.scanned)})")
    return lines


def status_json(record: Record) -> dict[str, object]:
    """Return a record as JSON values, as in the manifest, with its name."""
    return {"name": record.name, **record.to_json()}


def _version_lines(platform: str, version: Version, repository: str, *, is_current: bool) -> list[str]:
    until = f", until {format_time(version.until)}" if version.until is not None else ""
    reason = f": {version.reason}" if version.reason is not None else ""
    state = f"{version.state} since {format_time(version.since)}{until}{reason}"
    lines = [f"  {platform}  {'' if is_current else '(earlier) '}{state}; published {format_time(version.published)}"]
    lines += [] if version.reference is None else [f"    reference {version.reference}"]
    lines.append(f"    digest    {version.digest}")
    if version.config is not None:
        lines.append(f"    config    {version.config}")
    if version.sandbox is not None:
        size = f", {format_size(version.unpacked_size)}" if version.unpacked_size else ""
        lines.append(f"    sandbox   /cvmfs/{repository}/{version.sandbox} ({version.files} entries{size})")
    if version.sif is not None:
        lines.append(f"    SIF       {version.sif.path} ({format_size(version.sif.size)})")
    if version.file_index is not None:
        lines.append(f"    files     {paths.file_index_path(version.content)}")
    if version.signed is not None:
        lines.append(f"    signed by {version.signed.get('identity') or 'the key ' + version.signed.get('key', '')}")
    lines += [f"    attached  {one.get('kind')} {one.get('digest')} ({one.get('type')})" for one in version.attached or ()]
    notes = ", ".join(f"{name}: {note}" for name, note in version.notes.items())
    lines.append(f"    test      {version.test or 'none'}{f'; {notes}' if notes else ''}")
    return lines


def format_time(seconds: int) -> str:
    """Return a time for people: ``2026-11-29 10:41 UTC``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
