"""The command ``publisher``: its commands, each imported when it is asked for, and the handling of failures.

Exit codes: 0 success, 1 an image failed, 2 usage or configuration, 3 a bug (with its traceback), 4 the host or the publication
needs attention, 5 another run is active. Results go to standard output; messages, progress and the log go to standard error.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from publisher import __version__
from publisher.cli.console import console
from publisher.cli.logging_options import logging_flags
from publisher.errors import ListError, PublisherError, UsageError
from publisher.system.durable import host_failure

if TYPE_CHECKING:
    from types import FrameType

BUG_EXIT_CODE = 3
_INTERRUPTED_EXIT_CODE = 130
_COMMANDS = {
    "adopt": "commands.adopt:adopt_command",
    "block": "commands.operate:block_command",
    "check": "commands.publish:check",
    "completion": "setup.completion:completion_command",
    "diff": "commands.inspect:diff_command",
    "doctor": "setup.doctor:doctor_command",
    "gc": "commands.operate:gc_command",
    "help": "commands.help:help_command",
    "import": "commands.publish:import_",
    "init": "setup.init:init_command",
    "keys": "commands.keys:keys_group",
    "list": "commands.look:list_command",
    "log": "commands.log:log_group",
    "metrics": "setup.metrics:metrics_command",
    "origin": "commands.inspect:origin_command",
    "plan": "commands.publish:plan",
    "rollback": "commands.operate:rollback_command",
    "scan": "commands.scan:scan_command",
    "schema": "commands.publish:schema",
    "status": "commands.look:status_command",
    "sync": "commands.publish:sync",
    "unblock": "commands.operate:unblock_command",
    "usage": "commands.usage:usage_command",
    "verify": "commands.inspect:verify_command",
    "watch": "commands.watch:watch_command",
}
"""Name of a command -> its module in this folder, and its function there."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for: each needs other libraries, and all of them take a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command by its name, None if there is none."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, function = _COMMANDS[cmd_name].partition(":")
        path = f"publisher.cli.{module}"
        if path not in sys.modules:
            _import(path)
        command: click.Command = getattr(sys.modules[path], function)
        return command


def _import(path: str) -> None:
    """Import a module, and collect no garbage meanwhile, which would take an eighth of the CPU time and find none."""
    gc.disable()
    try:
        importlib.import_module(path)
        gc.freeze()  # modules stay, so that no later collection looks through them
    finally:
        gc.enable()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="publisher")
@logging_flags
def publisher(**_logging: object) -> None:
    """Publish container images to CVMFS (sandboxes) and OSDF (SIFs), with a signed manifest.

    The commands check, plan and sync work from an image list; all others look after what is published. The options for logging
    may stand before or after the command.
    """


def main() -> None:
    """Run the program and exit; every failure is reported here, once."""
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it looks for some in all installed packages
    try:
        publisher.main(prog_name="publisher", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        console.tell("interrupted; finished work is kept, run again to continue", logging.ERROR)
        sys.exit(_INTERRUPTED_EXIT_CODE)
    except ListError as error:
        for problem in error.problems:
            console.tell(problem, logging.ERROR)
        console.tell(f"{error}; nothing was done", logging.ERROR)
        sys.exit(error.exit_code)
    except PublisherError as error:
        console.tell(str(error), logging.ERROR)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the outermost frame: a bug keeps its traceback and gets its own exit code
        failure = host_failure(error) if isinstance(error, OSError) else None
        if failure is not None:
            console.tell(str(failure), logging.ERROR)
            sys.exit(failure.exit_code)
        console.tell_bug(error)
        sys.exit(BUG_EXIT_CODE)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
