"""Options that several commands have: the settings as flags, and the options of a run."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from publisher.cli.assembly.run_options import RunOptions
from publisher.cli.logging_options import logging_options
from publisher.plan.make import FEW_REMOVALS, MAX_REMOVED_SHARE
from publisher.settings.kinds import kind_of
from publisher.settings.settings import PublisherSettings, default_text
from publisher.settings.sources import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

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
        flags = {key: _joined(options.pop(key)) for key in ("config", *setting_flags())}
        return function(settings=load_settings(flags, os.environ), **options)

    wrapped = logging_options(cast("F", with_settings))
    lists = {field.alias or name for name, field in PublisherSettings.model_fields.items() if kind_of(field).is_list}
    for key, (flag, metavar, text) in reversed(setting_flags().items()):
        hidden = key not in _SHOWN
        wrapped = click.option(flag, key, multiple=key in lists, metavar=metavar, help=text, hidden=hidden)(wrapped)
    text = "publisher.yaml with settings; each setting is also a flag, see: publisher help settings"
    return click.option("--config", metavar="FILE", help=text)(wrapped)


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
    return cast("F", click.argument("names", nargs=-1, metavar="[NAME]...")(wrapped))
