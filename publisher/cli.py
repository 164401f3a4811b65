"""The command line: ``publisher check | plan | sync | …``. Wiring, messages and exit codes; nothing else.

Exit codes: 0 all well, 1 some image failed or the run was cut short, 2 usage or configuration, 3 a bug (with its traceback).
Standard output is for data (the plan, the report), standard error for talk.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from publisher import __version__, images, importing, signing, wiring
from publisher.checking import Verdict
from publisher.config import Settings, settings
from publisher.errors import ListError, PublisherError, UsageError
from publisher.layout import DEFAULT_ARCHITECTURE
from publisher.plan import MOST_REMOVED
from publisher.reports import check as checks
from publisher.reports.progress import display
from publisher.reports.run import plan_json, plan_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

BUG = 3
_INTERRUPTED = 130
_SEVERAL = ("insecure_registry", "trusted_keys")
_METAVARS = {"images": "FILE", "key": "FILE", "trusted_keys": "FILE", "insecure_registry": "HOST:PORT"}
_METAVARS |= dict.fromkeys(("repository", "origin", "state"), "DIR")

F = TypeVar("F", bound="Callable[..., Any]")


def _common(function: F) -> F:
    """The flags that all commands have: one for each key of the configuration, and ``--config``."""
    for name, field in reversed(Settings.model_fields.items()):
        key = field.alias or name
        flag, metavar = f"--{key.replace('_', '-')}", _METAVARS.get(key, "VALUE")
        function = click.option(flag, key, multiple=key in _SEVERAL, metavar=metavar, help=field.description)(function)
    text = "publisher.yaml: any of these settings; flags and PUBLISHER_* variables win over it"
    return click.option("--config", metavar="FILE", help=text)(function)


def _wishes(function: F) -> F:
    """What plan and sync are told alike; the command gets it as ``wishes``."""

    @functools.wraps(function)
    def wishing(names: tuple[str, ...], rebind: tuple[str, ...], allow_mass_removal: bool, **others: object) -> object:
        return function(wishes=wiring.Wishes(names, rebind, allow_mass_removal), **others)

    removal = f"more than {MOST_REMOVED:.0%} of the published names may leave in this run"
    binding = "this published name may come from another repository from now on"
    wrapped = click.option("--allow-mass-removal", is_flag=True, help=removal)(wishing)
    wrapped = click.option("--rebind", multiple=True, metavar="NAME", help=binding)(wrapped)
    return cast("F", click.argument("names", nargs=-1, metavar="[NAME]...")(wrapped))


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
@_common
def check(base: str | None, whole: bool, form: str, summary: Path | None, **flags: object) -> None:
    """Check entries of the list before they are merged: names, existence, platforms, sizes, and whether everybody can pull them.

    Exit codes: 0 nothing is wrong (a registry that is down is no fault of the entry), 1 something is, 2 the list cannot be read.
    """
    if (base is None) != whole:
        raise UsageError("give either --base REVISION or --all")
    chosen = settings(flags, os.environ)
    try:
        changes = wiring.changes(chosen, base)
    except ListError as error:
        if summary is not None:
            summary.write_text(checks.markdown_problems(error.problems))
        if form == "github":
            click.echo("\n".join(checks.github_problems(error.problems)))
        raise
    with display() as shown, wiring.intake(chosen, shown) as intake:
        checked = wiring.check(chosen, changes, intake)
        for line in intake.warnings():
            shown.say(line)
    texts = {
        "text": lambda: "\n".join(checks.lines(checked, changes.dropped, str(chosen.images))),
        "github": lambda: "\n".join(checks.github(checked, _relative(chosen.images))),
        "markdown": lambda: checks.markdown(checked, changes.dropped),
        "json": lambda: json.dumps(checks.to_json(checked, changes.dropped), indent=2),
    }
    click.echo(texts[form]().rstrip("\n"))
    if summary is not None:
        summary.write_text(checks.markdown(checked, changes.dropped))
    sys.exit(1 if any(one.verdict is Verdict.WRONG for one in checked) else 0)


@publisher.command()
@click.option("--json", "as_json", is_flag=True, help="for programs")
@_wishes
@_common
def plan(as_json: bool, wishes: wiring.Wishes, **flags: object) -> None:
    """Print what sync would do, for all images or those NAMEd."""
    chosen = settings(flags, os.environ)
    listed, catalog = wiring.listed(chosen), wiring.published(chosen)
    with display() as shown, wiring.intake(chosen, shown) as intake:
        made = wiring.plan(chosen, listed, catalog, intake, wishes)
        for line in intake.warnings():
            shown.say(line)
    _print(plan_json(made), plan_lines(made), as_json)


@publisher.command()
@click.option("--json", "as_json", is_flag=True, help="for programs")
@_wishes
@_common
def sync(as_json: bool, wishes: wiring.Wishes, **flags: object) -> None:
    """Publish what is new or changed: all images of the list, or those NAMEd."""
    chosen = settings(flags, os.environ)
    publication = wiring.publication(chosen)
    listed = wiring.listed(chosen)  # a bad list is told before anything is begun
    with wiring.locked(chosen.state), display() as shown, wiring.intake(chosen, shown) as intake:
        catalog, done = publication.open()
        for line in done:
            shown.say(line)
        made = wiring.plan(chosen, listed, catalog, intake, wishes)
        report = wiring.sync(chosen, made, catalog, intake=intake, publication=publication, display=shown)
    _print(report.to_json(), report.lines(), as_json)
    sys.exit(report.exit_code)


@publisher.command()
@click.argument("one", metavar="NAME|DIGEST")
@click.argument("other", metavar="[NAME|DIGEST]", required=False)
@click.option("--arch", default=DEFAULT_ARCHITECTURE, show_default=True, help="which platform of a name")
@click.option("--times", is_flag=True, help="modification times count as well")
@click.option("--json", "as_json", is_flag=True, help="for programs: an object for each path")
@_common
def diff(one: str, other: str | None, arch: str, times: bool, as_json: bool, **flags: object) -> None:
    """Show which paths differ between two published builds; of a NAME alone, between the build before and the one now.

    Compared by content, from the builds' file indexes. + new, - gone, ~ different.
    """
    count = 0
    for count, change in enumerate(wiring.diff(settings(flags, os.environ), one, other, arch, times=times), 1):  # noqa: B007
        click.echo(json.dumps(change.to_json()) if as_json else str(change))
    click.echo(f"{count} path(s) differ", err=True)


@publisher.group()
def keys() -> None:
    """The keys that sign the manifest."""


@keys.command()
@_common
def new(**flags: object) -> None:
    """Make a key pair: the private key at --key FILE, the public one beside it as FILE.pub."""
    path = settings(flags, os.environ).signing_key()
    made = signing.new_key(path)
    click.echo(f"private key: {path} (for this publisher alone)")
    click.echo(f"public key:  {signing.public_path_of(path)} (for the execution points)")
    click.echo(f"key id:      {made.keyid}")


@publisher.command(name="import")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(importing.FORMS), default="auto", help="of FILE; auto looks at it")
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path), help="where to write it, instead of standard output")
def import_(file: Path, form: importing.Form, output: Path | None) -> None:
    """Turn another tool's list into images.yaml.

    The list of cvmfs-singularity-sync (docker-images), or a recipe of ducc. What cannot be taken over as it was, or is not
    quite what it looks like, is told with its line; the exit code is 1 then.
    """
    imported = importing.load(file, form)
    if output is None:
        click.echo(imported.text, nl=False)
    else:
        importing.save(imported.text, output)
    for line in imported.told:
        _tell(line)
    sys.exit(1 if imported.told else 0)


@publisher.command()
def schema() -> None:
    """Print the JSON Schema of images.yaml, for editors."""
    click.echo(images.schema(), nl=False)


def _relative(path: Path) -> str:
    """A path as annotations want it: from the top of the checkout that the command runs in."""
    return os.path.relpath(path)


def _print(value: object, lines: list[str], as_json: bool) -> None:
    click.echo(json.dumps(value, indent=2) if as_json else "\n".join(lines))


def main() -> None:
    """The program; every failure is told here, once."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        publisher.main(prog_name="publisher", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _tell("interrupted; what was finished is kept, run again to go on")
        sys.exit(_INTERRUPTED)
    except ListError as error:
        for problem in error.problems:
            _tell(problem)
        _tell(f"{error}; nothing was done")
        sys.exit(error.exit_code)
    except PublisherError as error:
        _tell(str(error))
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001 - the outermost frame: a bug keeps its traceback and gets its own exit code
        traceback.print_exc()
        _tell("this is a bug: please report it with the lines above")
        sys.exit(BUG)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _tell(line: str) -> None:
    click.echo(f"publisher: {line}", err=True)
