"""Commands with which an operator changes what is published: gc, block, unblock, rollback."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import click

from publisher.cli.assembly.run import collect_garbage
from publisher.cli.assembly.targets import find_record
from publisher.cli.console import console
from publisher.cli.options import common, complete_names
from publisher.cli.render import status as render_status
from publisher.cli.session import open_publication, raise_if_behind
from publisher.maintain import block
from publisher.state import transitions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.publish.publication import Publication
    from publisher.settings.settings import PublisherSettings
    from publisher.state.snapshot import Snapshot


@click.command("gc", short_help="Remove what was superseded or left long ago.")
@click.option("--dry-run", is_flag=True, help="Only print what would be removed. Remnants of a killed run are still recovered.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def gc_command(*, dry_run: bool, as_json: bool, settings: PublisherSettings) -> None:
    """Remove builds that were superseded, and names that left, longer than their grace ago.

    Removes from the manifest, the repository and the origin, within the limits removals_per_run and removed_size_per_run. Every
    sync of the whole list does the same at its end.

    Example: publisher gc --dry-run
    """
    with open_publication(settings) as (publication, snapshot):
        result = collect_garbage(settings, publication, snapshot, dry_run=dry_run)
    error = None if result.error is None else str(result.error)
    shown = {"dry_run": dry_run, "lines": result.lines, "error": error, "serial": result.snapshot.serial}
    console.show(shown, result.lines or ["nothing to do"], as_json)
    if result.error is not None:
        raise result.error


@click.command("block", short_help="Block an image at once, under all its names.")
@click.argument("subject", metavar="NAME|DIGEST", shell_complete=complete_names)
@click.option("--reason", required=True, metavar="TEXT", help="Why; users see this text when their job is refused.")
@click.option("--history", is_flag=True, help="Block the earlier builds of NAME too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def block_command(subject: str, reason: str, *, history: bool, as_json: bool, settings: PublisherSettings) -> None:
    """Block an image at once: the build that NAME has now, or the platform manifest or config DIGEST (sha256:...).

    Its sandbox, links and SIF are removed under every name and manifest that has it, and execution points refuse it. Syncs do
    not publish it again, whatever the image list says, until publisher unblock.

    Example: publisher block htc/rocky:9 --reason "contains a stolen token"
    """
    with open_publication(settings) as (publication, snapshot):
        plan = block.plan_block(snapshot, subject, int(time.time()), reason, history=history)
        result = block.apply(publication, snapshot, plan)
        _follow_up(settings, publication, result.snapshot)
    notes = _evict(settings, plan.sifs)
    lines = [*(f"blocked: {name}" for name in plan.changed), *notes]
    console.show({"blocked": list(plan.changed), "notes": notes}, lines, as_json)
    raise_if_behind(result)


def _follow_up(settings: PublisherSettings, publication: Publication, snapshot: Snapshot) -> None:
    """Have the status page and notices say what has changed."""
    from publisher.cli.assembly.follow_up import follow_up  # noqa: PLC0415 - the other commands need no templates

    for line in follow_up(settings, publication, snapshot):
        console.tell(line, logging.WARNING)


def _evict(settings: PublisherSettings, sifs: Sequence[str]) -> list[str]:
    """Ask the caches of the settings to evict SIFs; return lines about those that did not agree."""
    if not settings.caches:
        return []
    from publisher.cli.assembly.caches import evict  # noqa: PLC0415 - it needs HTTP

    return evict(settings, sifs)


@click.command("unblock", short_help="Undo block.")
@click.argument("subject", metavar="NAME|DIGEST", shell_complete=complete_names)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def unblock_command(subject: str, *, as_json: bool, settings: PublisherSettings) -> None:
    """Undo block for NAME, or for the platform manifest DIGEST; the next sync publishes what the image list says.

    Only the manifest changes; the image is downloaded and built again by that sync.
    """
    with open_publication(settings) as (publication, snapshot):
        plan = block.plan_unblock(snapshot, subject)
        result = block.apply(publication, snapshot, plan)
        _follow_up(settings, publication, result.snapshot)
    lines = [f"no longer blocked: {name}; the next sync publishes it again" for name in plan.changed]
    console.show({"unblocked": list(plan.changed)}, lines, as_json)
    raise_if_behind(result)


@click.command("rollback", short_help="Return a name to its previous build.")
@click.argument("name", shell_complete=complete_names)
@click.option("--undo", is_flag=True, help="Return to the build that NAME had before the rollback.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def rollback_command(name: str, *, undo: bool, as_json: bool, settings: PublisherSettings) -> None:
    """Make NAME stand for its previous build. Syncs do not change it until --undo.

    Can be repeated to go back further, as long as earlier builds are published. See publisher status NAME.
    """
    with open_publication(settings) as (publication, snapshot):
        transition = transitions.undo_rollback if undo else transitions.roll_back
        record = transition(find_record(snapshot, name), int(time.time()))
        result = publication.change(snapshot, {name: record})
        _follow_up(settings, publication, result.snapshot)
    lines = render_status.status_lines(record, result.snapshot.repository)
    console.show(render_status.status_json(record), lines, as_json)
    raise_if_behind(result)


COMMANDS = (gc_command, block_command, unblock_command, rollback_command)
