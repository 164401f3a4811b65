"""What the commands have in common: the settings as flags, and how they talk."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from publisher.cli.assemble import RunOptions
from publisher.plan.make import MAX_REMOVED_SHARE
from publisher.settings.settings import PublisherSettings

if TYPE_CHECKING:
    from collections.abc import Callable

_SEVERAL = ("insecure_registry", "trusted_keys", "origin_hosts")
_METAVARS = {"images": "FILE", "key": "FILE", "trusted_keys": "FILE", "insecure_registry": "HOST:PORT"}
_METAVARS |= dict.fromkeys(("repository", "origin", "state"), "DIR")

F = TypeVar("F", bound="Callable[..., Any]")


def common(function: F) -> F:
    """The flags that all commands have: one for each key of the configuration, and ``--config``."""
    for name, field in reversed(PublisherSettings.model_fields.items()):
        key = field.alias or name
        flag, metavar = f"--{key.replace('_', '-')}", _METAVARS.get(key, "VALUE")
        function = click.option(flag, key, multiple=key in _SEVERAL, metavar=metavar, help=field.description)(function)
    text = "publisher.yaml: any of these settings; flags and PUBLISHER_* variables win over it"
    return click.option("--config", metavar="FILE", help=text)(function)


def wishes(function: F) -> F:
    """What plan and sync are told alike; the command gets it as ``wishes``."""

    @functools.wraps(function)
    def wishing(names: tuple[str, ...], rebind: tuple[str, ...], allow_mass_removal: bool, **others: object) -> object:
        return function(wishes=RunOptions(names, rebind, allow_mass_removal), **others)

    removal = f"more than {MAX_REMOVED_SHARE:.0%} of the published names may leave in this run"
    binding = "this published name may come from another repository from now on"
    wrapped = click.option("--allow-mass-removal", is_flag=True, help=removal)(wishing)
    wrapped = click.option("--rebind", multiple=True, metavar="NAME", help=binding)(wrapped)
    return cast("F", click.argument("names", nargs=-1, metavar="[NAME]...")(wrapped))


def show(value: object, lines: list[str], as_json: bool) -> None:
    """Data, on standard output: for programs, or for people."""
    click.echo(json.dumps(value, indent=2) if as_json else "\n".join(lines))


def tell(line: str) -> None:
    """A line of talk, on standard error."""
    click.echo(f"publisher: {line}", err=True)
