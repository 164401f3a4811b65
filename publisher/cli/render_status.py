"""What is published under a name: for people and for programs. What its registry says is not asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.state import paths
from publisher.system.quantities import size_text

if TYPE_CHECKING:
    from publisher.contract.manifest import Record, Version


def lines(record: Record, repository: str) -> list[str]:
    """For people; ``repository`` is the repository's name."""
    found = [record.name, f"  source    {record.reference}", f"  digest    {record.digest}"]
    if record.held is not None:
        found.append(f"  held      rolled back on {_day(record.held['since'])}; publisher rollback --undo {record.name}")
    for platform, versions in record.platforms.items():
        for number, version in enumerate(versions):
            found += _version_lines(platform, version, repository, first=number == 0)
    return found


def to_json(record: Record) -> dict[str, object]:
    """For programs: the record as the manifest has it, with its name."""
    return {"name": record.name, **record.to_json()}


def _version_lines(platform: str, version: Version, repository: str, *, first: bool) -> list[str]:
    until = f", until {_day(version.until)}" if version.until is not None else ""
    why = f": {version.reason}" if version.reason is not None else ""
    state = f"{version.state} since {_day(version.since)}{until}{why}"
    found = [f"  {platform}  {'' if first else '(earlier) '}{state}; published {_day(version.published)}"]
    found.append(f"    manifest  {version.digest}")
    if version.sandbox is not None:
        where = f"/cvmfs/{repository}/{version.sandbox}"
        found.append(f"    sandbox   {where} ({version.files} entries{_of(version.unpacked_size)})")
    if version.sif is not None:
        found.append(f"    SIF       {version.sif.path} ({size_text(version.sif.size)})")
    if version.file_index is not None:
        found.append(f"    files     {paths.file_index_path(version.digest)}")
    notes = ", ".join(f"{name}: {what}" for name, what in version.notes.items())
    found.append(f"    test      {version.test or 'none'}{f'; {notes}' if notes else ''}")
    return found


def _of(count: int) -> str:
    return f", {size_text(count)}" if count else ""


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
