"""Renders the answers about images and the overview, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from publisher.cli.render.status import format_time, status_json, status_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from publisher.maintain.scanner import ScanResult
    from publisher.status.answer import ImageAnswer
    from publisher.status.overview import Overview
    from publisher.usage.records import NameUsage, UseCount


def answer_lines(
    answer: ImageAnswer, repository: str, scans: Mapping[str, ScanResult], usage: NameUsage | None = None
) -> list[str]:
    """Return an answer as text: the state with its reason, then what is published under the name.

    ``repository`` is the repository's name, ``scans`` has the results of scans by digest, ``usage`` is the use of the name.
    """
    since = "" if answer.since is None else f" since {format_time(answer.since)}"
    lines = [f"{answer.name}: {answer.state.value}{since}: {answer.reason}"]
    if answer.last is not None and answer.last.last_try:
        following = "in the next sync" if not answer.last.next_try else f"after {format_time(answer.last.next_try)}"
        lines.append(f"  tries     {answer.last.tries}, the last on {format_time(answer.last.last_try)}; again {following}")
    if usage is not None:
        lines.append(f"  used      {use_text(usage.total)}")
    if answer.record is not None:
        lines += status_lines(answer.record, repository, scans)[1:]
    elif answer.reference:
        lines.append(f"  reference {answer.reference}")
    return lines


def use_text(use: UseCount) -> str:
    """Return a use as text: at least so many jobs and hosts, and the last day."""
    hosts = f" on {use.hosts} host(s)" if use.hosts else ""
    return f"by {use.jobs} job(s){hosts} or more, last on {format_time(use.last)[:10]}"


def usage_json(usage: NameUsage) -> dict[str, object]:
    """Return the use of a name as JSON values."""
    versions = [{"digest": digest or None, **asdict(use)} for digest, use in usage.versions.items()]
    return {**asdict(usage.total), "versions": versions}


def answer_json(
    answer: ImageAnswer, scans: Mapping[str, ScanResult] | None = None, usage: NameUsage | None = None
) -> dict[str, object]:
    """Return an answer as JSON values; ``record`` is as in the manifest, or null. ``scans`` and ``usage`` are added if given."""
    shown: dict[str, object] = {} if scans is None else {"scans": {digest: scan.to_json() for digest, scan in scans.items()}}
    shown |= {} if usage is None else {"usage": usage_json(usage)}
    last = answer.last
    tries = {} if last is None else {"tries": last.tries, "last_try": last.last_try, "next_try": last.next_try or None}
    return {
        "name": answer.name,
        "state": answer.state.value,
        "reason": answer.reason,
        "since": answer.since,
        "usable": answer.is_usable,
        "reference": answer.reference or None,
        **tries,
        "record": None if answer.record is None else status_json(answer.record),
        **shown,
    }


def table_lines(answers: Sequence[ImageAnswer]) -> list[str]:
    """Return answers as a table with one line each, and the total."""
    names = max((len(answer.name) for answer in answers), default=0)
    states = max((len(answer.state.value) for answer in answers), default=0)
    lines = [f"{one.name:{names}}  {one.state.value:{states}}  {_date(one)}  {one.reason}" for one in answers]
    return [*lines, f"{len(answers)} image(s)"]


def overview_lines(overview: Overview) -> list[str]:
    """Return the overview as text that fits on one screen."""
    lines = [overview.repository]
    if overview.serial:
        signed, expires = format_time(overview.signed), format_time(overview.expires)
        lines.append(f"  manifest   serial {overview.serial}, signed {signed}, valid until {expires}")
    if overview.finished:
        seconds = overview.finished - overview.started
        took = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"  # noqa: PLR2004 - two minutes
        lines.append(f"  last sync  {format_time(overview.started)}, took {took}")
    if overview.next_run is not None:
        lines.append(f"  next sync  {format_time(overview.next_run)}")
    if overview.running:
        lines.append(f"  now        a sync is under way; {overview.running} image(s) are not finished")
    lines.append("  images     " + (", ".join(f"{count} {state.value}" for state, count in overview.counts.items()) or "none"))
    if overview.problems or overview.attention:
        lines.append("needs attention:")
    lines += [f"  {problem}" for problem in overview.problems]
    shown = overview.attention[:_SHOWN]
    lines += [f"  {one.name}: {one.state.value} since {_date(one)}: {one.reason}" for one in shown]
    if len(overview.attention) > _SHOWN:
        lines.append(f"  and {len(overview.attention) - _SHOWN} more: publisher list --only failing --only gone")
    return lines


def overview_json(overview: Overview) -> dict[str, object]:
    """Return the overview as JSON values; times are seconds since the epoch, null where there is none."""
    return {
        "repository": overview.repository,
        "serial": overview.serial,
        "signed": overview.signed or None,
        "expires": overview.expires or None,
        "last_run": {"started": overview.started or None, "finished": overview.finished or None},
        "next_run": overview.next_run,
        "running": overview.running,
        "counts": {state.value: count for state, count in overview.counts.items()},
        "problems": list(overview.problems),
        "attention": [{"name": one.name, "state": one.state.value, "reason": one.reason} for one in overview.attention],
    }


_SHOWN = 15
"""Images that need attention which the overview shows."""


def _date(answer: ImageAnswer) -> str:
    return "-" * 10 if answer.since is None else format_time(answer.since)[:10]
