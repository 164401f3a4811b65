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
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from publisher import __version__, signing, wiring
from publisher.config import Settings, settings
from publisher.errors import ListError, PublisherError, UsageError
from publisher.plan import MOST_REMOVED
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
@click.option("--json", "as_json", is_flag=True, help="for programs")
@_wishes
@_common
def plan(as_json: bool, wishes: wiring.Wishes, **flags: object) -> None:
    """Print what sync would do, for all images or those NAMEd."""
    chosen = settings(flags, os.environ)
    listed, catalog = wiring.listed(chosen), wiring.published(chosen)
    with display() as shown, wiring.intake(chosen, shown) as intake:
        made = wiring.plan(chosen, listed, catalog, intake, wishes)
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
