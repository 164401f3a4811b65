"""The output of the command line: results on standard output; messages, progress and the log on standard error."""

from __future__ import annotations

import json
import logging
import sys
from typing import IO, TYPE_CHECKING

import click

from publisher.system import logs, progress

if TYPE_CHECKING:
    from publisher.system.progress import Display

_log = logging.getLogger(__name__)


class Console:
    """The output of this process; :meth:`configure` applies the options for logging once a command begins."""

    def __init__(self) -> None:
        self._verbosity = 0
        self._form = logs.TEXT

    def configure(self, verbosity: int, form: str) -> None:
        """Apply the options for logging.

        Args:
            verbosity: -1 only shows errors, 0 is the default, 1 logs the phases of a run, 2 logs decisions too.
            form: :data:`publisher.system.logs.TEXT` or :data:`publisher.system.logs.JSON`.
        """
        self._verbosity, self._form = verbosity, form
        logs.configure(verbosity, form)

    def show(self, value: object, lines: list[str], as_json: bool) -> None:
        """Print a result on standard output: ``value`` as JSON, or ``lines``."""
        click.echo(json.dumps(value, indent=2) if as_json else _printable("\n".join(lines)))

    def tell(self, line: str, level: int = logging.INFO) -> None:
        """Write a message for the operator to standard error: as a line, or with ``--log-format json`` to the log.

        ``-q`` hides everything below the level ERROR.
        """
        if self._form == logs.JSON:
            _log.log(level, "%s", line)
        elif self._verbosity >= 0 or level >= logging.ERROR:
            click.echo(f"publisher: {_printable(line)}", err=True)

    def tell_bug(self, error: BaseException) -> None:
        """Write an unexpected exception with its traceback to standard error."""
        text = "this is a bug: please report it with the traceback"
        _log.critical(text, exc_info=error)

    def ask_secret(self, purpose: str) -> str | None:
        """Ask the person at the terminal for a secret, which is not shown; return None if nobody is there."""
        return str(click.prompt(f"publisher: {purpose}", hide_input=True, err=True)) if sys.stdin.isatty() else None

    def ask_new_secret(self, purpose: str) -> str | None:
        """Ask twice for a new secret, as :meth:`ask_secret` does."""
        if not sys.stdin.isatty():
            return None
        return str(click.prompt(f"publisher: {purpose}", hide_input=True, confirmation_prompt=True, err=True))

    def open_display(self) -> Display:
        """Return the display of progress; with ``-q`` or ``--log-format json`` progress goes to the log."""
        if self._verbosity < 0 or self._form == logs.JSON:
            return LogDisplay()
        return display_for(sys.stderr)


def _printable(text: str) -> str:
    return "\n".join(map(logs.printable, text.split("\n")))


class LogDisplay(progress.Display):
    """A display that writes progress to the log: phases and results as INFO, steps as DEBUG, other lines as WARNING."""

    def begin(self, what: str, total: int) -> None:
        """See :meth:`publisher.system.progress.Display.begin`."""
        _log.info("%s: %d", what, total)

    def advance(self) -> None:
        """See :meth:`publisher.system.progress.Display.advance`."""

    def step(self, image: str, step: str, done: int, total: int) -> None:
        """See :meth:`publisher.system.progress.Display.step`."""
        _log.debug("%s: %s (%d of %d bytes)", image, step, done, total)

    def finish(self, image: str, outcome: str) -> None:
        """See :meth:`publisher.system.progress.Display.finish`."""
        _log.info("%s: %s", image, outcome)

    def say(self, line: str) -> None:
        """See :meth:`publisher.system.progress.Display.say`."""
        _log.warning("%s", line)


def display_for(out: IO[str]) -> progress.Display:
    """Return a display for a stream: a live table if it is a terminal, plain lines otherwise."""
    if not out.isatty():
        return progress.LineDisplay(out)
    from rich.console import Console as Terminal  # noqa: PLC0415 - only terminals need it, and most commands show nothing

    from publisher.system.live_table import TableDisplay  # noqa: PLC0415 - likewise

    terminal = Terminal(file=out)
    return TableDisplay(terminal) if terminal.is_terminal and not terminal.is_dumb_terminal else progress.LineDisplay(out)


console = Console()
"""The console of this process."""
