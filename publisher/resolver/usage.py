"""What ``image-resolver --help`` says."""

from __future__ import annotations

import textwrap

from publisher.resolver.config import settings

COMMANDS = (
    (
        "resolve NAME",
        (
            "prints the path of a published container image, ready to be started: a sandbox, or a SIF in the cache; "
            "NAME: /cvmfs/<repository>/htc/rocky:9, htc/rocky:9, docker://<registry>/htc/rocky:9, or sha256:… of either form"
        ),
    ),
    (
        "cache SUBCOMMAND",
        (
            "list; gc: bring it within its limits; verify: read every SIF, remove what is damaged; clear: all that no job needs; "
            "fill NAME…: have images in the store, else in the cache; statistics: as attributes of a machine; "
            "where each user has a cache, root's list, gc and statistics are about all of them"
        ),
    ),
    ("prepare-job", "HTCondor's hook of this name: the job's ad on standard input, the answer on standard output"),
    ("job-exit", "HTCondor's hook of this name: what the job was given may be removed from the cache again"),
    ("pilot-start", "measures what this host can do for containers, and draws the default image: HTCondor's configuration"),
    ("startd-cron", "measures it again: attributes of the machine, for HTCondor's startd cron"),
    ("condor-config", "HTCondor's configuration for an execution point, with comments; needs --config"),
    ("condor-config access-point", "the same for an access point, whose jobs name our images"),
)
"""Every command with its arguments, and what it does."""
_FURTHER = (
    ("--config FILE", "all of these from a file: [resolver], key = value, several values one to an indented line"),
    ("--force", "cache clear: what jobs need as well; they keep what they have open"),
    ("--json", "the answer as a JSON object, with digests and where they are from"),
)
_END = """\
Each setting also has an environment variable, IMAGE_RESOLVER_PUBLIC_KEY and so on (values of a list separated by blanks).
Flags win over variables, variables over the file. Times may have a unit (10 min, 4 h), sizes too (50 GB).

Exit status: 0 all well; 1 for the user to mend (no such image, blocked, other architecture); 2 usage or configuration;
3 a bug; 4 the host or the network. The hooks have statuses of their own.
"""
_WIDTH, _COLUMN = 130, 30


def text() -> str:
    """The whole help."""
    lines = ["usage: image-resolver COMMAND [flags]", ""]
    for words, meaning in COMMANDS:
        lines += _entry(words, meaning)
    lines.append("")
    for name, kind, many, default, meaning in settings.TABLE:
        also = "; can be repeated" * many + (f"; default {default}" if default else "")
        lines += _entry(f"--{name} {kind}", meaning + also)
    for flag, meaning in _FURTHER:
        lines += _entry(flag, meaning)
    return "\n".join([*lines, "", _END.rstrip()])


def _entry(words: str, meaning: str) -> list[str]:
    """Lines with the words in the left column, and their meaning in the right one."""
    left = f"  {words}".ljust(_COLUMN)
    gap = [] if len(left) == _COLUMN else [left.rstrip()]
    indent = " " * _COLUMN
    wrapped = textwrap.wrap(meaning, _WIDTH, initial_indent=indent if gap else left, subsequent_indent=indent)
    return gap + wrapped
