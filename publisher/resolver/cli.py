"""The command ``image-resolver``: standard output has the answer and nothing else, standard error has the talk."""

from __future__ import annotations

import os
import sys
import time

from publisher.contract.errors import ExpectedError
from publisher.resolver.config.commandline import CommandLine
from publisher.resolver.errors import ResolverUsageError
from publisher.resolver.system import log
from publisher.resolver.system.notes import Warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def main() -> int:
    """Run the command with this process's arguments; the exit status."""
    notes = Warnings()
    arguments = sys.argv[1:]
    if arguments and arguments[0] in HOOKS:
        return HOOKS[arguments[0]](arguments)
    try:
        sys.stdout.write(_run(arguments, notes) + "\n")
        sys.stdout.flush()
    except ExpectedError as error:
        _write_warnings(notes)
        log.error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001 - the outermost frame: a bug has a status of its own
        sys.excepthook(*sys.exc_info())
        return 3
    _write_warnings(notes)
    return 0


def _write_warnings(notes: Warnings) -> None:
    for line in notes.warnings:
        log.warning(line)


def _run(arguments: Sequence[str], notes: Warnings) -> str:
    line = CommandLine(arguments)
    line.configure_log()
    if line.help:
        from publisher.resolver import usage  # noqa: PLC0415 - who asks for help has time

        return usage.text()
    if not line.words or line.words[0] not in COMMANDS:
        raise ResolverUsageError(f"usage: image-resolver {'|'.join((*COMMANDS, *HOOKS))} … [flags]", hint="image-resolver --help")
    return COMMANDS[line.words[0]](line, notes)


def _resolve(line: CommandLine, notes: Warnings) -> str:
    if len(line.words) != 2:  # noqa: PLR2004 - the command and its one argument
        raise ResolverUsageError("usage: image-resolver resolve NAME [flags]", hint="image-resolver --help")
    from publisher.resolver.select import resolve  # noqa: PLC0415 - not every command's

    answer = resolve.resolve(line.words[1], line.settings(os.environ), time.time(), notes)
    if not line.json:
        return answer.path
    import json  # noqa: PLC0415 - imported with the manifest anyway

    return json.dumps(answer.to_json(notes), indent=2)


def _cache(line: CommandLine, notes: Warnings) -> str:
    from publisher.resolver.host import cache_admin  # noqa: PLC0415 - not every command's

    value = cache_admin.run([*line.words[1:], *[cache_admin.FORCE] * line.force], line.settings(os.environ), notes)
    if not line.json:
        return cache_admin.shown(value)
    import json  # noqa: PLC0415 - as above

    return json.dumps(value, indent=2)


def _prepare_job(arguments: Sequence[str]) -> int:
    from publisher.resolver.hook import main as hook  # noqa: PLC0415 - not every command's

    return hook.main(arguments)


def _job_exit(arguments: Sequence[str]) -> int:
    from publisher.resolver.hook import job_exit  # noqa: PLC0415 - not every command's

    return job_exit.main(arguments)


def _pilot(name: str) -> Callable[[CommandLine, Warnings], str]:
    def run(line: CommandLine, notes: Warnings) -> str:
        from publisher.resolver.host import commands  # noqa: PLC0415 - no job waits for it

        return str(getattr(commands, name)(line, notes))

    return run


COMMANDS: Mapping[str, Callable[[CommandLine, Warnings], str]] = {
    "resolve": _resolve,
    "cache": _cache,
    "pilot-start": _pilot("start"),
    "startd-cron": _pilot("cron"),
    "condor-config": _pilot("configuration"),
}
"""Command -> what runs it and gives the text to print; a failure is raised. ``usage.py`` has their descriptions."""
HOOKS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "prepare-job": _prepare_job,
    "job-exit": _job_exit,
}
"""HTCondor's hooks -> what runs one with all arguments and gives the exit status; it writes the answer and handles failures."""
