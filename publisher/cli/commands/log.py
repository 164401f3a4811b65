"""Commands about the publication log: show, verify."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from publisher.cli.assembly.targets import load_snapshot, make_repository, make_witness, trusted_keys
from publisher.cli.console import console
from publisher.cli.options import common, complete_names
from publisher.contract import manifest
from publisher.errors import UsageError
from publisher.maintain import log_audit
from publisher.state.paths import REPOSITORY_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from publisher.maintain.log_audit import PublicationLog
    from publisher.settings.settings import PublisherSettings


@click.group("log")
def log_group() -> None:
    """Look at the publication log: what was published when, by whom, and why."""


@log_group.command("show", short_help="Print the log, or what became of a name.")
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per change.")
@common
def show_command(name: str | None, settings: PublisherSettings, *, as_json: bool) -> None:
    """Print the changes of all names, or of NAME, the oldest first.

    Example: publisher log show htc/rocky:9
    """
    log, _ = _read(settings)
    for entry in log.entries:
        for change in entry.changes:
            if name in (None, change.name):
                when = f"{datetime.fromtimestamp(entry.time, UTC):%Y-%m-%d %H:%M}"
                facts = {"serial": entry.serial, "time": entry.time, "who": entry.who, **asdict(change)}
                reason = f" ({change.reason})" if change.reason else ""
                line = f"{entry.serial} {when} {entry.who}: {change.name} {change.platform} {change.digest} {change.why}{reason}"
                click.echo(json.dumps(facts) if as_json else line)
    for problem in log.problems:
        console.tell(problem)


@log_group.command("verify", short_help="Verify the log against the manifest and the witness.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def verify_command(settings: PublisherSettings, *, as_json: bool) -> None:
    """Verify the publication log: no entry was changed or left out, and the manifest says what the log says.

    With the setting witness, every index that the witness has is compared too: two signed indexes of one serial that differ prove
    that different readers were shown different manifests. Registries are not asked; without a witness, nothing but the repository
    is read. A line is printed for each problem.

    Exit codes: 0 no problems, 1 there are problems.

    Example: publisher log verify --witness git:/srv/witness.git
    """
    problems = list(_problems(settings))
    if problems or as_json:
        console.show({"problems": problems}, problems, as_json)
    console.tell(f"{len(problems)} problem(s)")
    sys.exit(1 if problems else 0)


def _problems(settings: PublisherSettings) -> Iterator[str]:
    log, index = _read(settings)
    trusted, witness = trusted_keys(settings), make_witness(settings)
    yield from log_audit.verify_log(log, load_snapshot(settings).records.values())
    if witness is not None:
        yield from log_audit.compare_with_witness(log, index, witness.indexes(), trusted)


def _read(settings: PublisherSettings) -> tuple[PublicationLog, manifest.Index]:
    """Return the log in the repository, and the index that names it."""
    repository = make_repository(settings)
    read: Callable[[str], bytes | None] = lambda name: repository.read(f"{REPOSITORY_MANIFEST}/{name}")  # noqa: E731
    content = read(manifest.INDEX_NAME)
    if content is None:
        raise UsageError("nothing is published, so there is no log")
    index = manifest.Index.parse(manifest.unseal(content)[0], repository.name)
    return log_audit.read_log(read, index), index
