"""Commands that answer what is there and what is not: status, list."""

from __future__ import annotations

import fnmatch
import sys
import time
from typing import TYPE_CHECKING

import click

from publisher.cli.assembly.known import know
from publisher.cli.assembly.targets import make_repository
from publisher.cli.console import console
from publisher.cli.options import common, complete_names
from publisher.cli.render.answers import answer_json, answer_lines, overview_json, overview_lines, table_lines
from publisher.contract.errors import InvalidReferenceError
from publisher.contract.query import parse_text
from publisher.errors import UsageError
from publisher.maintain.scans import read_results
from publisher.status.answer import ImageState, answer
from publisher.status.last_run import load_last_run
from publisher.status.overview import make_overview
from publisher.usage.store import load_usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.settings.settings import PublisherSettings

_STATES = [state.value for state in ImageState]


@click.command("status", short_help="Say whether images are there, and if not, why.")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_names)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def status_command(names: tuple[str, ...], as_json: bool, settings: PublisherSettings) -> None:
    """Say of each NAME whether it is published, since when, from which digest, and if not, why. Registries are not asked.

    NAME is anything that a job may name: a CVMFS name or path, a reference with or without docker://, or a digest. Without NAME,
    an overview is printed: counts by state, the last and the next sync, and what needs attention.

    Exit codes: 0 all is well, 1 a NAME cannot be used now, or something needs attention.

    Example: publisher status htc/rocky:9
    """
    known = know(settings)
    if not names:
        overview = make_overview(known, int(time.time()), settings.sync_interval, load_last_run(settings.state).behind)
        console.show(overview_json(overview), overview_lines(overview), as_json)
        sys.exit(1 if overview.problems or overview.attention else 0)
    answers = [answer(known, _keys(name, settings, known.snapshot.repository)) for name in names]
    records = [found.record for found in answers]
    scanned = [{} if record is None else read_results(make_repository(settings), record) for record in records]
    usage = load_usage(settings.state)
    all_known = [(found, scans, usage.get(found.name)) for found, scans in zip(answers, scanned, strict=True)]
    lines = [line for found, scans, use in all_known for line in answer_lines(found, known.snapshot.repository, scans, use)]
    console.show([answer_json(found, scans, use) for found, scans, use in all_known], lines, as_json)
    sys.exit(0 if all(found.is_usable for found in answers) else 1)


@click.command("list", short_help="List images with their states.")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--only", "states", multiple=True, type=click.Choice(_STATES), help="Only images in this state. Can be repeated.")
@click.option("--owner", metavar="OWNER", help="Only images of which the list names this owner.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def list_command(
    patterns: tuple[str, ...], states: tuple[str, ...], owner: str | None, *, as_json: bool, settings: PublisherSettings
) -> None:
    """List all images, or those whose name matches a PATTERN such as 'htc/*', with their states. Registries are not asked.

    Exit codes: 0 images were found, 1 none was.

    Example: publisher list --only failing --owner htc
    """
    known = know(settings)
    if owner is not None and known.image_list is None:
        raise UsageError(f"owners are unknown: there is no image list {settings.images}", hint="give its path with --images FILE")
    owned = {entry.name for entry in known.entries_by_key.values() if entry.owner == owner}
    found = [
        answer(known, [name])
        for name in known.names
        if (not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)) and (owner is None or name in owned)
    ]
    found = [one for one in found if not states or one.state.value in states]
    console.show([answer_json(one) for one in found], table_lines(found), as_json)
    sys.exit(0 if found else 1)


def _keys(text: str, settings: PublisherSettings, repository: str) -> Sequence[str]:
    """Return the keys that a text may have in the manifest.

    Raises:
        UsageError: the text cannot name an image of this repository.
    """
    roots = [f"/cvmfs/{repository}", *([] if settings.repository is None else [str(settings.repository)])]
    try:
        query = parse_text(text, roots)
    except InvalidReferenceError as error:
        raise UsageError(str(error)) from None
    if query is None:
        raise UsageError(f"{text} is not a path in {roots[0]}", hint="give the name of an image, such as htc/rocky:9")
    return query.keys


COMMANDS = (status_command, list_command)
