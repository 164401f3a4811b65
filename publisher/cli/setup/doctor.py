"""The command ``publisher doctor``: what is wrong with this host, and what to do, on one screen."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from publisher.cli.console import console
from publisher.cli.options import common
from publisher.cli.setup.checks import Verdict, examine

if TYPE_CHECKING:
    from publisher.settings.settings import PublisherSettings


@click.command("doctor", short_help="Look at the whole host: what is wrong, and what to do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def doctor_command(*, as_json: bool, settings: PublisherSettings) -> None:
    """Look at configuration, tools, accounts, keys, repository, origin, token, space, registries and clock.

    Each registry of the list is asked for one image. Nothing is published or changed.

    Exit codes: 0 nothing is wrong (there may be warnings), 1 something is.

    Example: publisher doctor --config /etc/ospool-image-publisher/publisher.yaml
    """
    findings = list(examine(settings))
    lines = [f"{found.verdict.value:7}  {found.part:10}  {found.text}" for found in findings]
    wrong = [found for found in findings if found.verdict is Verdict.WRONG]
    value = [{"part": found.part, "verdict": found.verdict.value, "text": found.text} for found in findings]
    console.show(value, [*lines, f"{len(wrong)} thing(s) are wrong" if wrong else "nothing is wrong"], as_json)
    sys.exit(1 if wrong else 0)
