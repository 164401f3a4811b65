"""Options that several commands have: the settings as flags, the options for logging, and the options of a run."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from publisher.cli.assembly.run import RunOptions
from publisher.cli.console import console
from publisher.plan.make import FEW_REMOVALS, MAX_REMOVED_SHARE
from publisher.settings.kinds import kind_of
from publisher.settings.settings import PublisherSettings, default_text
from publisher.settings.sources import load_settings
from publisher.system import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SHOWN = ("images", "repository", "origin", "state", "key")
"""Settings that the help of a command shows; ``publisher help settings`` shows all."""
_IN_FILE_ONLY = ("quotas",)
"""Settings with more structure than a flag can have."""

F = TypeVar("F", bound="Callable[..., Any]")


def logging_flags(function: F) -> F:
    """Add the flags ``-v``, ``-q`` and ``--log-format`` to a command or group, which receives their values."""
    form = click.Choice([logs.TEXT, logs.JSON])
    function = click.option("--log-format", type=form, help="Form of the log on standard error.  [default: text]")(function)
    function = click.option("-q", "--quiet", is_flag=True, help="Show errors only: no progress, notes or warnings.")(function)
    text = "Log the phases of the run; -vv also logs decisions, such as what is kept and why."
    return click.option("-v", "--verbose", count=True, help=text)(function)


def logging_options(function: F) -> F:
    """Add the flags for logging to a command and apply them before it begins; they may also stand before the command."""

    @functools.wraps(function)
    def configured(**options: object) -> object:
        _configure_logging()
        others = {name: value for name, value in options.items() if name not in {"verbose", "quiet", "log_format"}}
        return function(**others)

    return logging_flags(cast("F", configured))


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


def _configure_logging() -> None:
    """Combine the flags for logging that stand before and after the command."""
    contexts = list(_contexts())
    verbosity = sum(context.params.get("verbose") or 0 for context in contexts)
    is_quiet = any(context.params.get("quiet") for context in contexts)
    forms = [context.params["log_format"] for context in contexts if context.params.get("log_format") is not None]
    if is_quiet and verbosity:
        raise click.UsageError("-q and -v exclude each other")
    console.configure(-1 if is_quiet else verbosity, forms[0] if forms else logs.TEXT)


def _contexts() -> Iterator[click.Context]:
    """Yield the context of the current command and those of its groups, from the inside out."""
    context: click.Context | None = click.get_current_context()
    while context is not None:
        yield context
        context = context.parent
