"""The text of ``image-resolver --help``."""

from __future__ import annotations

import textwrap

from publisher.resolver.config import settings
from publisher.resolver.config.similar import similar_hint
from publisher.resolver.errors import ResolverUsageError

COMMANDS = (
    (
        "resolve NAME",
        (
            "print the path of a published image that is ready to be started: a sandbox, or a SIF in the cache. "
            "NAME is /cvmfs/<repository>/htc/rocky:9, htc/rocky:9, docker://<registry>/htc/rocky:9, or the sha256:… of an image "
            "or of a SIF"
        ),
    ),
    (
        "cache SUBCOMMAND",
        (
            "administer the cache. list: show all SIFs; gc: evict until the cache is within its limits; "
            "verify [DAYS]: hash all SIFs, or the share of one day in DAYS, and remove damaged ones; "
            "clear: remove all SIFs that no job needs; "
            "fill NAME… (or the flag used): fetch images into the store, or without a store into the cache; "
            "statistics: print machine attributes. "
            "If each user has a cache of their own, list, gc, verify and statistics run by root are about all of them"
        ),
    ),
    ("prepare-job", "HTCondor's hook of this name: read the job ad from standard input, print the answer"),
    ("job-exit", "HTCondor's hook of this name: release the job's SIFs, so that they can be evicted"),
    ("pilot-start", "measure what this host can do for containers, draw the default image, print HTCondor's configuration"),
    ("startd-cron", "measure the host again and print machine attributes, for HTCondor's startd cron"),
    ("startd-cron failures", "print how many jobs reported since then that their image did not start, likewise"),
    ("condor-config", "print HTCondor's configuration for an execution point, with comments; needs --config"),
    ("condor-config access-point", "print HTCondor's configuration for an access point whose jobs name published images"),
)
"""Every command with its arguments, and what it does."""
_OTHER_FLAGS = (
    ("--config FILE", "read settings from a file: section [resolver], key = value; further values of a list on indented lines"),
    ("--force", "cache clear: also remove SIFs that jobs need; a job keeps the files that it has open"),
    ("--used", "cache fill: the images that jobs got as a SIF within a week, according to the trace"),
    ("--json", "print the result as JSON, with digests and sources"),
    ("--version", "print the version"),
    ("-v, --verbose", "log decisions and failed requests to standard error; -vv logs everything"),
    ("-q, --quiet", "write only errors to standard error, no warnings"),
    ("--log-format text|json", "format of the messages on standard error; default text"),
)
_END = """\
Each setting also has an environment variable, such as IMAGE_RESOLVER_PUBLIC_KEY (values of a list separated by blanks).
Flags override variables, and variables override the file. Times and sizes may have a unit (10 min, 4 h, 50 GB).

Results go to standard output, all messages to standard error.

Exit status: 0 success; 1 an error that the user must fix (unknown or blocked image, other architecture); 2 wrong usage or
configuration; 3 a bug; 4 a failure of the host or the network. The hooks always exit with 0; prepare-job answers with a status.
"""
_WIDTH, _COLUMN = 130, 30


def text() -> str:
    """Return the whole help text."""
    lines = ["usage: image-resolver COMMAND [flags]", "", "Commands:"]
    for words, meaning in COMMANDS:
        lines += _entry(words, meaning)
    lines += ["", "Settings:"]
    for name, kind, is_list, default, meaning in settings.TABLE:
        suffix = "; can be repeated" * is_list + (f"; default {default}" if default else "")
        lines += _entry(f"--{name} {kind}", meaning + suffix)
    lines += ["", "Other flags:"]
    for flag, meaning in _OTHER_FLAGS:
        lines += _entry(flag, meaning)
    return "\n".join([*lines, "", _END.rstrip()])


def command_text(command: str) -> str:
    """Return the help of one command.

    Raises:
        ResolverUsageError: there is no such command.
    """
    found = [entry for entry in COMMANDS if entry[0].split()[0] == command]
    if not found:
        known = [words.split()[0] for words, _ in COMMANDS]
        raise ResolverUsageError(f"there is no command {command!r}", hint=similar_hint(command, known, "image-resolver --help"))
    lines = [f"usage: image-resolver {words} [flags]" for words, _ in found] + [""]
    for words, meaning in found:
        lines += _entry(words, meaning)
    lines += ["", "Flags:"]
    for flag, meaning in _OTHER_FLAGS:
        if flag not in ("--force", "--used") or command == "cache":
            lines += _entry(flag, meaning)
    return "\n".join([*lines, "", "Every setting is a flag too; image-resolver --help lists them, and the exit statuses."])


def _entry(words: str, meaning: str) -> list[str]:
    """Return lines with the words in the left column and their meaning in the right one."""
    left = f"  {words}".ljust(_COLUMN)
    first_line = [] if len(left) == _COLUMN else [left.rstrip()]  # too long to share a line with the meaning
    indent = " " * _COLUMN
    wrapped = textwrap.wrap(meaning, _WIDTH, initial_indent=indent if first_line else left, subsequent_indent=indent)
    return first_line + wrapped
