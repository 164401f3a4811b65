"""The command ``image-resolver``. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import os
import sys
import time

from publisher import __version__
from publisher.contract.errors import ExpectedError
from publisher.resolver.config.commandline import CommandLine
from publisher.resolver.errors import ResolverUsageError, UnknownImageError
from publisher.resolver.system import log
from publisher.resolver.system.notes import Warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def main() -> int:
    """Run the command with the arguments of the process and return the exit status."""
    notes = Warnings()
    arguments = sys.argv[1:]
    if arguments and arguments[0] in HOOKS and not {"-h", "--help"} & set(arguments):
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
    except Exception:  # noqa: BLE001 - the outermost frame: a bug has its own exit status
        sys.excepthook(*sys.exc_info())
        return 3
    _write_warnings(notes)
    return 0


def _write_warnings(notes: Warnings) -> None:
    for line in notes.warnings:
        log.warning(line)


def _run(arguments: Sequence[str], notes: Warnings) -> str:
    """Run a command and return the text to print."""
    line = CommandLine(arguments)
    line.configure_log()
    if line.version:
        return f"image-resolver {__version__}"
    if line.help:
        from publisher.resolver import usage  # noqa: PLC0415 - only the help needs it

        return usage.command_text(line.words[0]) if line.words else usage.text()
    if not line.words:
        raise ResolverUsageError(f"usage: image-resolver {'|'.join((*COMMANDS, *HOOKS))} … [flags]", hint="image-resolver --help")
    if line.words[0] not in COMMANDS:
        from publisher.resolver.config.similar import similar_hint  # noqa: PLC0415 - only mistakes need it

        hint = similar_hint(line.words[0], (*COMMANDS, *HOOKS), f"the commands are {', '.join((*COMMANDS, *HOOKS))}")
        raise ResolverUsageError(f"there is no command {line.words[0]!r}", hint=hint)
    return COMMANDS[line.words[0]](line, notes)


def _resolve(line: CommandLine, notes: Warnings) -> str:
    if len(line.words) != 2:  # noqa: PLR2004 - the command and its one argument
        raise ResolverUsageError("usage: image-resolver resolve NAME [flags]", hint="image-resolver --help")
    from publisher.resolver.select import resolve  # noqa: PLC0415 - only this command needs it

    name, settings, now = line.words[1], line.settings(os.environ), time.time()
    try:
        resolution = resolve.resolve(name, settings, now, notes)
    except UnknownImageError as error:
        if type(error) is not UnknownImageError:
            raise
        from publisher.resolver.select import suggestions  # noqa: PLC0415 - only this error needs it

        raise suggestions.add_suggestions(error, name, settings, now) from None
    if not line.json:
        return resolution.path
    import json  # noqa: PLC0415 - only --json needs it

    return json.dumps(resolution.to_json(notes), indent=2)


def _cache(line: CommandLine, notes: Warnings) -> str:
    from publisher.resolver.host import cache_admin, cache_render  # noqa: PLC0415 - only this command needs it

    words = [*line.words[1:], *[cache_admin.FORCE] * line.force, *[cache_admin.USED] * line.used]
    if words[:1] == ["verify"]:
        _lower_priority()
    result = cache_admin.run(words, line.settings(os.environ), notes)
    if not line.json:
        return cache_render.render(result)
    import json  # noqa: PLC0415 - only --json needs it

    return json.dumps(result, indent=2)


def _lower_priority() -> None:
    """Yield the processor to everything else: hashing a cache takes long, and jobs run here."""
    os.setpriority(os.PRIO_PROCESS, 0, 19)


def _prepare_job(arguments: Sequence[str]) -> int:
    from publisher.resolver.hook import main as hook  # noqa: PLC0415 - only this command needs it

    return hook.main(arguments)


def _job_exit(arguments: Sequence[str]) -> int:
    from publisher.resolver.hook import job_exit  # noqa: PLC0415 - only this command needs it

    return job_exit.main(arguments)


def _host_command(name: str) -> Callable[[CommandLine, Warnings], str]:
    """Return a function that runs one of :mod:`publisher.resolver.host.commands`."""

    def run(line: CommandLine, notes: Warnings) -> str:
        from publisher.resolver.host import commands  # noqa: PLC0415 - no job needs it

        return str(getattr(commands, name)(line, notes))

    return run


COMMANDS: Mapping[str, Callable[[CommandLine, Warnings], str]] = {
    "resolve": _resolve,
    "cache": _cache,
    "pilot-start": _host_command("pilot_start"),
    "startd-cron": _host_command("startd_cron"),
    "condor-config": _host_command("condor_configuration"),
}
"""Command -> function that runs it and returns the text to print, or raises. ``usage.py`` has the descriptions."""
HOOKS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "prepare-job": _prepare_job,
    "job-exit": _job_exit,
}
"""HTCondor hook -> function that gets all arguments, writes the answer, handles all failures, and returns the exit status."""
