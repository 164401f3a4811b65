"""The command line: ``publisher check | plan | sync | …``. Wiring, messages and exit codes; nothing else.

Exit codes: 0 all well, 1 some image failed or the run was cut short, 2 usage or configuration, 3 a bug (with its traceback).
Standard output is for data (the plan, the report), standard error for talk.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher import __version__
from publisher.cli import assemble, maintenance
from publisher.cli import render_check as checks
from publisher.cli.options import common, show, tell, wishes
from publisher.cli.render_run import plan_json, plan_lines, report_json, report_lines
from publisher.errors import ListError, PublisherError, UsageError
from publisher.images import reader
from publisher.images.importers import convert
from publisher.plan.lint import CheckVerdict
from publisher.settings.settings import settings
from publisher.state import signing
from publisher.system.progress import display

if TYPE_CHECKING:
    from types import FrameType

BUG = 3
_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="publisher")
def publisher() -> None:
    """Publish container images to CVMFS (sandboxes) and OSDF (SIFs), with a signed manifest."""


@publisher.command()
@click.option("--base", metavar="REVISION", help="check what the list changes against this revision of its git repository")
@click.option("--all", "whole", is_flag=True, help="check the whole list")
@click.option("--format", "form", type=click.Choice(["text", "github", "markdown", "json"]), default="text", show_default=True)
@click.option("--json", "form", flag_value="json", help="the same as --format json")
@click.option("--summary", type=click.Path(dir_okay=False, path_type=Path), help="write a Markdown summary to this file as well")
@common
def check(base: str | None, whole: bool, form: str, summary: Path | None, **flags: object) -> None:
    """Check entries of the list before they are merged: names, existence, platforms, sizes, and whether everybody can pull them.

    Exit codes: 0 nothing is wrong (a registry that is down is no fault of the entry), 1 something is, 2 the list cannot be read.
    """
    if (base is None) != whole:
        raise UsageError("give either --base REVISION or --all")
    chosen = settings(flags, os.environ)
    try:
        changes = assemble.changes(chosen, base)
    except ListError as error:
        if summary is not None:
            summary.write_text(checks.markdown_problems(error.problems))
        if form == "github":
            click.echo("\n".join(checks.github_problems(error.problems)))
        raise
    with display() as shown, assemble.intake(chosen, shown) as intake:
        checked = assemble.check(chosen, changes, intake)
        for line in intake.warnings():
            shown.say(line)
    texts = {
        "text": lambda: "\n".join(checks.lines(checked, changes.removed, str(chosen.images))),
        "github": lambda: "\n".join(checks.github(checked, _relative(chosen.images))),
        "markdown": lambda: checks.markdown(checked, changes.removed),
        "json": lambda: json.dumps(checks.to_json(checked, changes.removed), indent=2),
    }
    click.echo(texts[form]().rstrip("\n"))
    if summary is not None:
        summary.write_text(checks.markdown(checked, changes.removed))
    sys.exit(1 if any(one.verdict is CheckVerdict.WRONG for one in checked) else 0)


@publisher.command()
@click.option("--json", "as_json", is_flag=True, help="for programs")
@wishes
@common
def plan(as_json: bool, wishes: assemble.RunOptions, **flags: object) -> None:
    """Print what sync would do, for all images or those NAMEd."""
    chosen = settings(flags, os.environ)
    listed, snapshot = assemble.listed(chosen), assemble.published(chosen)
    with display() as shown, assemble.intake(chosen, shown) as intake:
        made = assemble.plan(chosen, listed, snapshot, intake, wishes)
        for line in intake.warnings():
            shown.say(line)
    show(plan_json(made), plan_lines(made), as_json)


@publisher.command()
@click.option("--json", "as_json", is_flag=True, help="for programs")
@wishes
@common
def sync(as_json: bool, wishes: assemble.RunOptions, **flags: object) -> None:
    """Publish what is new or changed: all images of the list, or those NAMEd."""
    chosen = settings(flags, os.environ)
    publication = assemble.publication(chosen)
    listed = assemble.listed(chosen)  # a bad list is told before anything is begun
    with assemble.locked(chosen.state), display() as shown, assemble.intake(chosen, shown) as intake:
        snapshot, done = publication.open()
        for line in done:
            shown.say(line)
        made = assemble.plan(chosen, listed, snapshot, intake, wishes)
        tidy = not wishes.names
        report = assemble.sync(chosen, made, snapshot, intake=intake, publication=publication, display=shown, tidy=tidy)
    show(report_json(report), report_lines(report), as_json)
    sys.exit(report.exit_code)


@publisher.group()
def keys() -> None:
    """The keys that sign the manifest."""


@keys.command()
@common
def new(**flags: object) -> None:
    """Make a key pair: the private key at --key FILE, the public one beside it as FILE.pub."""
    path = settings(flags, os.environ).signing_key()
    made = signing.new_key(path)
    click.echo(f"private key: {path} (for this publisher alone)")
    click.echo(f"public key:  {signing.public_path_of(path)} (for the execution points)")
    click.echo(f"key id:      {made.keyid}")


@publisher.command(name="import")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(convert.FORMS), default="auto", help="of FILE; auto looks at it")
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path), help="where to write it, instead of standard output")
def import_(file: Path, form: convert.Form, output: Path | None) -> None:
    """Turn another tool's list into images.yaml.

    The list of cvmfs-singularity-sync (docker-images), or a recipe of ducc. What cannot be taken over as it was, or is not
    quite what it looks like, is told with its line; the exit code is 1 then.
    """
    imported = convert.load(file, form)
    if output is None:
        click.echo(imported.text, nl=False)
    else:
        convert.save(imported.text, output)
    for line in imported.problems:
        tell(line)
    sys.exit(1 if imported.problems else 0)


@publisher.command()
def schema() -> None:
    """Print the JSON Schema of images.yaml, for editors."""
    click.echo(reader.schema(), nl=False)


for command in maintenance.COMMANDS:
    publisher.add_command(command)


def _relative(path: Path) -> str:
    """A path as annotations want it: from the top of the checkout that the command runs in."""
    return os.path.relpath(path)


def main() -> None:
    """The program; every failure is told here, once."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        publisher.main(prog_name="publisher", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        tell("interrupted; what was finished is kept, run again to go on")
        sys.exit(_INTERRUPTED)
    except ListError as error:
        for problem in error.problems:
            tell(problem)
        tell(f"{error}; nothing was done")
        sys.exit(error.exit_code)
    except PublisherError as error:
        tell(str(error))
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001 - the outermost frame: a bug keeps its traceback and gets its own exit code
        traceback.print_exc()
        tell("this is a bug: please report it with the lines above")
        sys.exit(BUG)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
