"""The command ``usage``: which images jobs use, and what that suggests for the list."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from publisher.cli.assembly.known import know
from publisher.cli.console import console
from publisher.cli.options import common
from publisher.cli.render.answers import usage_json, use_text
from publisher.cli.render.status import format_time
from publisher.errors import UsageError
from publisher.usage import history, proposals
from publisher.usage.list_patch import removal_patch
from publisher.usage.proposals import MONTH
from publisher.usage.store import FILE_NAME, UsageStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.settings.settings import PublisherSettings
    from publisher.status.answer import Known

PROGRAM = "condor_history"
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("usage", short_help="Show which images jobs use, and propose changes of the list.")
@click.option("--trace", "traces", multiple=True, metavar="FILE", type=_FILE, help="Read a trace of an execution point.")
@click.option(
    "--history", "histories", multiple=True, metavar="FILE", type=_FILE, help="Read what condor_history -json has printed."
)
@click.option("--condor-history", "asks", is_flag=True, help="Run condor_history, for the jobs since the last time.")
@click.option("--schedd", "schedds", multiple=True, metavar="NAME", help="Ask this access point with condor_history.")
@click.option("--unused", metavar="MONTHS", type=click.IntRange(min=1), help="List images that no job has used for so long.")
@click.option("--patch", "as_patch", is_flag=True, help="With --unused: print a patch of images.yaml that removes them.")
@click.option("--propose", is_flag=True, help="List images that jobs name by docker:// and that are not published.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def usage_command(
    *,
    traces: tuple[Path, ...],
    histories: tuple[Path, ...],
    asks: bool,
    schedds: tuple[str, ...],
    unused: int | None,
    as_patch: bool,
    propose: bool,
    as_json: bool,
    settings: PublisherSettings,
) -> None:
    """Count which images jobs use, from traces of execution points and the history of access points, and show it.

    --trace, --history and --schedd can be repeated; what is new since the last time goes into a file of the state directory.
    publisher status NAME and the status page show the counts too. They are lower bounds: only the jobs of hosts that were read
    are known. Nothing is ever removed: --unused and --propose print proposals, for a person to decide.

    Example: publisher usage --condor-history --unused 12 --patch > unused.patch
    """
    if as_patch and unused is None:
        raise UsageError("--patch needs --unused MONTHS")
    if not settings.state.is_dir():
        raise UsageError(f"there is no state directory {settings.state}", hint="publisher sync makes it")
    known, now = know(settings), int(time.time())
    with UsageStore(settings.state / FILE_NAME) as store:
        _read_sources(
            store, set(known.names), now, traces=traces, histories=histories, schedds=schedds or ((None,) if asks else ())
        )
        usage, since, candidates = store.usage(), store.since(), store.candidates()
    value: dict[str, Any] = {"since": since, "images": [{"name": name, **usage_json(usage[name])} for name in sorted(usage)]}
    lines: list[str] = []
    if unused is not None:
        found = proposals.unused_names(known, usage, _unused_before(unused, since, now))
        value["unused"] = [{"name": one.name, "last": one.last or None, "line": one.line or None} for one in found]
        lines += [f"unused: {one.name}: {_last(one.last)}" for one in found] or ["every image was used"]
        if as_patch:
            value["patch"], value["by_hand"] = _patch(settings, known, [one.name for one in found])
            lines = value["patch"].splitlines()
    if propose:
        proposed = proposals.proposed_images(known, candidates)
        value["proposed"] = [{"reference": one.reference, "jobs": one.use.jobs, "last": one.use.last} for one in proposed]
        lines += [f"- {one.reference}  # {use_text(one.use)}" for one in proposed] or ["no image is proposed"]
    if unused is None and not propose:
        lines = [f"{name}: {use_text(usage[name].total)}" for name in sorted(usage, key=lambda one: -usage[one].total.jobs)]
    console.show(value, lines or ["no use of an image is known"], as_json)
    for name in value.get("by_hand", ()):
        console.tell(f"{name} is not in the patch: it has no lines of its own in the list", logging.WARNING)


def _read_sources(
    store: UsageStore,
    names: set[str],
    now: int,
    *,
    traces: Sequence[Path],
    histories: Sequence[Path],
    schedds: Sequence[str | None],  # None is the schedd of this host
) -> None:
    """Count what traces and histories have got since the last time, and say so. Raise PublisherError."""
    for path in traces:
        console.tell(f"{path}: {store.read_trace(path, now, names.__contains__)} job(s)")
    for path in histories:
        console.tell(f"{path}: {store.read_history(_read(path), now, names.__contains__)} job(s)")
    for schedd in schedds:
        content = history.ask(PROGRAM, schedd, store.read_until())
        console.tell(f"{PROGRAM}: {store.read_history(content, now, names.__contains__)} job(s)")
    store.trim(now)


def _unused_before(months: int, since: int | None, now: int) -> int:
    """Return the time since when an image must have been used. Raise UsageError if nothing is known of that time."""
    before = now - months * MONTH
    if since is None or since > before:
        begins = "no job is known" if since is None else f"the known jobs begin on {format_time(since)[:10]}"
        raise UsageError(f"nothing can be said about {months} month(s): {begins}", hint="read older traces or histories")
    return before


def _patch(settings: PublisherSettings, known: Known, names: Sequence[str]) -> tuple[str, list[str]]:
    """Return the patch, and the names that a person has to look at."""
    own = {entry.name for entry in known.entries_by_key.values()}
    content, file = _read(settings.images), os.path.relpath(settings.images)
    patch, left = removal_patch(content, file, [name for name in names if name in own], settings.name_template)
    return patch, sorted({*left, *(name for name in names if name not in own)})


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _last(seconds: int) -> str:
    return f"last used on {format_time(seconds)[:10]}" if seconds else "no known job has used it"
