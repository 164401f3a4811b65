"""Options that several commands have: the settings as flags, and the options of a run."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from publisher.cli.assembly.run_options import RunOptions
from publisher.cli.console import console
from publisher.cli.logging_options import logging_options
from publisher.errors import PublisherError
from publisher.plan.make import FEW_REMOVALS, MAX_REMOVED_SHARE
from publisher.settings.kinds import kind_of
from publisher.settings.settings import PublisherSettings, default_text
from publisher.settings.sources import load_settings
from publisher.system import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SHOWN = ("images", "repository", "origin", "state", "key")
"""Settings that the help of a command shows; ``publisher help settings`` shows all."""
_IN_FILE_ONLY = ("quotas",)
"""Settings with more structure than a flag can have."""

F = TypeVar("F", bound="Callable[..., Any]")


def common(function: F) -> F:
    """Add the flags that all commands with settings have; the command receives :class:`PublisherSettings` as ``settings``.

    There is a flag for each key of publisher.yaml, ``--config``, and the flags for logging. The command's help shows only the
    flags that most runs need and names ``publisher help settings``.
    """

    @functools.wraps(function)
    def with_settings(**options: Any) -> object:
        flags = flags_of(options)
        options = {name: value for name, value in options.items() if name not in flags}
        return function(settings=load_settings(flags, os.environ), **options)

    wrapped = logging_options(cast("F", with_settings))
    lists = {field.alias or name for name, field in PublisherSettings.model_fields.items() if kind_of(field).is_list}
    for key, (flag, metavar, text) in reversed(setting_flags().items()):
        hidden = key not in _SHOWN
        wrapped = click.option(flag, key, multiple=key in lists, metavar=metavar, help=text, hidden=hidden)(wrapped)
    text = "publisher.yaml with settings; each setting is also a flag, see: publisher help settings"
    return click.option("--config", metavar="FILE", help=text)(wrapped)


def flags_of(options: Mapping[str, Any]) -> dict[str, object]:
    """Return the values of the flags of settings, and of ``config``, among all options of a command."""
    return {key: _joined(options.get(key)) for key in ("config", *setting_flags())}


def given_flags(context: click.Context) -> list[str]:
    """Return the flags of settings that a command was given, as words of a command line."""
    values = flags_of(context.params)
    return [f"--{key.replace('_', '-')}={value}" for key, value in values.items() if value is not None and value != ()]


def complete_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of images that begin with what was typed in a shell; none if the settings are not valid."""
    from publisher.cli.assembly.known import know  # noqa: PLC0415 - only a shell that completes needs it

    console.configure(-1, logs.TEXT)  # a message would disturb the line that is being typed
    try:
        known = know(load_settings(flags_of(context.params), os.environ))
    except PublisherError:
        return []
    return [name for name in known.names if name.startswith(incomplete)]


def _joined(value: object) -> object:
    """Return the values of a flag that can be repeated as one text with commas, as an environment variable has it."""
    return ",".join(value) if isinstance(value, tuple) and value else value


def setting_flags() -> dict[str, tuple[str, str, str]]:
    """Return the settings that are flags, by key: the flag, the kind of its value, and its meaning with the default."""
    flags = {}
    for name, field in PublisherSettings.model_fields.items():
        key, default = field.alias or name, default_text(name)
        if key not in _IN_FILE_ONLY:
            repeated = "; can be repeated, or with commas between" if kind_of(field).is_list else ""
            text = f"{field.description}{repeated}" + (f"  [default: {default}]" if default else "")
            flags[key] = (f"--{key.replace('_', '-')}", kind_of(field).metavar, text)
    return flags


def run_options(function: F) -> F:
    """Add the arguments and flags that plan and sync share; the command receives them as ``run``."""

    @functools.wraps(function)
    def with_run(names: tuple[str, ...], rebind: tuple[str, ...], allow_mass_removal: bool, **others: object) -> object:
        rebound = tuple(name for text in rebind for name in text.split(","))
        return function(run=RunOptions(names, rebound, allow_mass_removal), **others)

    removal = f"Allow more than {MAX_REMOVED_SHARE:.0%} (and {FEW_REMOVALS}) of the published names to leave in this run."
    binding = "Allow this published name to come from another repository than before; can be repeated, or with commas between."
    wrapped = click.option("--allow-mass-removal", is_flag=True, help=removal)(with_run)
    wrapped = click.option("--rebind", multiple=True, metavar="NAME", help=binding)(wrapped)
    return cast("F", click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_names)(wrapped))
