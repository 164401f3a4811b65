"""The commands of a publishing run (check, plan, sync), and those of its list (import, schema)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli.assembly.check import check_entries, select_changes
from publisher.cli.assembly.registry import make_intake
from publisher.cli.assembly.run import load_list, plan_run, run_sync
from publisher.cli.assembly.targets import load_snapshot, make_publication
from publisher.cli.console import console
from publisher.cli.logging_options import logging_options
from publisher.cli.options import common, run_options
from publisher.cli.render import check as render_check
from publisher.cli.render.run import plan_json, plan_lines, report_json, report_lines
from publisher.cli.setup.metrics import record_run
from publisher.cli.state_directory import lock_state
from publisher.errors import ListError, UsageError
from publisher.images import reader
from publisher.images.importers import convert
from publisher.net.server_dates import ServerDates
from publisher.plan.lint import CheckVerdict
from publisher.publish.manifest import manifest_store
from publisher.settings.targets import NO_PAGE
from publisher.status.running import RunningDisplay

if TYPE_CHECKING:
    from publisher.cli.assembly.page import SyncPage
    from publisher.cli.assembly.run_options import RunOptions
    from publisher.images.reader import ImageList
    from publisher.publish.publication import Publication
    from publisher.settings.settings import PublisherSettings

_PLACES = {"repository": manifest_store.REPOSITORY, "origin": manifest_store.ORIGIN, "state": manifest_store.STATE}


@click.command("check", short_help="Check entries of the image list before a merge.")
@click.option("--base", metavar="REVISION", help="Check what the list changes compared with this revision of its git repository.")
@click.option("--all", "whole", is_flag=True, help="Check the whole list.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "github", "markdown", "json"]),
    default="text",
    show_default=True,
    help="Form of the result; github prints annotations for a workflow.",
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option(
    "--summary", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Also write a Markdown summary to FILE."
)
@common
def check(base: str | None, whole: bool, form: str, summary: Path | None, settings: PublisherSettings) -> None:
    """Check entries of the image list before they are merged: names, existence, platforms, sizes, and anonymous access.

    Asks registries and changes nothing.

    Exit codes: 0 nothing is wrong (an unavailable registry is not the entry's fault), 1 an entry is wrong, 2 the list is not
    valid.

    Example: publisher check --base origin/main
    """
    if (base is None) != whole:
        raise UsageError("give either --base REVISION or --all")
    try:
        changes = select_changes(settings, base)
    except ListError as error:
        if summary is not None:
            summary.write_text(render_check.markdown_problems(error.problems))
        if form == "github":
            click.echo("\n".join(render_check.github_problems(error.problems)))
        raise
    with console.open_display() as display, make_intake(settings, display, discreet=True) as intake:
        checked = check_entries(settings, changes, intake)
        for line in intake.warnings():
            display.say(line)
    # GitHub's annotations need paths relative to the checkout, in which the command runs
    texts = {
        "text": lambda: "\n".join(render_check.text_lines(checked, changes.removed, str(settings.images))),
        "github": lambda: "\n".join(render_check.github(checked, os.path.relpath(settings.images))),
        "markdown": lambda: render_check.markdown(checked, changes.removed),
        "json": lambda: json.dumps(render_check.to_json(checked, changes.removed), indent=2),
    }
    click.echo(texts[form]().rstrip("\n"))
    if summary is not None:
        summary.write_text(render_check.markdown(checked, changes.removed))
    sys.exit(1 if any(entry.verdict is CheckVerdict.WRONG for entry in checked) else 0)


@click.command("plan", short_help="Print what sync would do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@run_options
@common
def plan(as_json: bool, run: RunOptions, settings: PublisherSettings) -> None:
    """Print what sync would do for all images of the list, or for NAMEs. Changes nothing.

    Exit codes: 0 success, 1 sync would report that an image failed, or removals would be withheld.

    Example: publisher plan htc/rocky:9
    """
    image_list, snapshot = load_list(settings), load_snapshot(settings)
    with console.open_display() as display, make_intake(settings, display) as intake:
        made = plan_run(settings, image_list, snapshot, intake, run)
        for line in intake.warnings():
            display.say(line)
    console.show(plan_json(made), plan_lines(made), as_json)
    sys.exit(made.exit_code)


@click.command("sync", short_help="Publish what is new or changed.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--start-from", type=click.Choice(list(_PLACES)), help="Continue the manifest of this place, after a fork.")
@click.option("--rebuild-missing", is_flag=True, help="Build again what is missing, even if that is much of what is published.")
@run_options
@common
def sync(as_json: bool, start_from: str | None, rebuild_missing: bool, run: RunOptions, settings: PublisherSettings) -> None:
    """Publish what is new or changed: all images of the list, or NAMEs.

    Downloads and builds images, publishes sandboxes and SIFs, and signs the manifest. Names that left the list start to leave.
    A sync of the whole list collects garbage at its end. An interrupted run continues with the next sync.

    Exit codes: 0 success, 1 an image failed, 4 the host or the publication needs attention, 5 another run is active.

    Example: publisher sync --config /etc/ospool-image-publisher/publisher.yaml
    """
    dates, began = ServerDates(), time.monotonic()
    publication = make_publication(settings, None if start_from is None else _PLACES[start_from], dates)
    image_list = load_list(settings)  # a list that is not valid fails before anything begins
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_state(settings.state))
        stack.enter_context(publication.hold())
        display = RunningDisplay(stack.enter_context(console.open_display()), settings.state)
        stack.enter_context(display)
        intake = stack.enter_context(make_intake(settings, display, dates=dates))
        snapshot, recovered = publication.open()
        for line in recovered:
            display.say(line)
        snapshot, missing = publication.drop_missing(snapshot, allowed=rebuild_missing)
        made = plan_run(settings, image_list, snapshot, intake, run)
        planned = time.monotonic()
        publication.check_clock()  # before hours of work that could not be signed
        snapshot, restored = publication.restore(snapshot)
        work = [item.entry.name for item in made.work]
        display.expect(work)
        page = _open_page(settings, image_list, publication)
        begun = () if page is None else page.begin(work)
        made = replace(made, notes=(*recovered, *missing, *restored, *made.notes, *begun))
        report = run_sync(
            settings,
            made,
            snapshot,
            intake=intake,
            publication=publication,
            display=display,
            collect=not run.names,
            page=page,
            image_list=image_list,
        )
        report.seconds, report.phases["plan"] = time.monotonic() - began, planned - began
        record_run(settings, report, intake.use())
    console.show(report_json(report), report_lines(report), as_json)
    sys.exit(report.exit_code)


def _open_page(settings: PublisherSettings, image_list: ImageList, publication: Publication) -> SyncPage | None:
    """Return the status page, None if the settings have no place for it."""
    if settings.page == NO_PAGE:
        return None
    from publisher.cli.assembly.page import SyncPage  # noqa: PLC0415 - no registry has to wait for the templates

    return SyncPage(settings, image_list, publication.repository, publication.origin)


@click.command("import", short_help="Convert the image list of another tool.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(convert.FORMS), default="auto", help="Form of FILE; auto detects it.")
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path), help="Write to FILE instead of standard output.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the list, unless --output has it, and what was reported.")
@logging_options
def import_(file: Path, form: convert.Form, output: Path | None, as_json: bool) -> None:
    """Convert the image list of another tool to images.yaml.

    FILE is a list of cvmfs-singularity-sync (docker-images) or a recipe of ducc. What cannot be converted exactly is reported
    with its line number.

    Exit codes: 0 everything was converted, 1 something was reported.
    """
    imported = convert.load(file, form)
    if output is not None:
        convert.save(imported.text, output)
    if as_json:
        click.echo(json.dumps({"text": imported.text if output is None else None, "problems": imported.problems}, indent=2))
    elif output is None:
        click.echo(imported.text, nl=False)
    for line in () if as_json else imported.problems:
        console.tell(line, logging.WARNING)
    sys.exit(1 if imported.problems else 0)


@click.command("schema")
@logging_options
def schema() -> None:
    """Print the JSON Schema of images.yaml, for editors.

    Example: publisher schema > images.schema.json
    """
    click.echo(reader.schema(), nl=False)
