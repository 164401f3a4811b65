"""The options for logging, which all commands have; they may stand before and after the command."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from publisher.cli.console import console
from publisher.system import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
