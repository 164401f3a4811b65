"""The command ``image-resolver``: standard output has the answer and nothing else, standard error has the talk.

Flags are parsed by hand: argparse would cost a fifth of the time that a warm answer takes.
"""

from __future__ import annotations

import os
import sys
import time

from publisher.resolver import config
from publisher.resolver.errors import ResolverError, UsageError
from publisher.resolver.notes import Notes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_HELP = """\
usage: image-resolver resolve NAME [flags]

Prints the path of a published container image, ready to be started: a sandbox in the repository, or a SIF in the cache.
NAME: /cvmfs/<repository>/htc/rocky:9, htc/rocky:9, docker://<registry>/htc/rocky:9, or sha256:… of a manifest or a SIF.

  --repository DIR         the repository; default /cvmfs/<repository name>
  --repository-name NAME   the name that the manifest must carry; default: the last part of --repository
  --manifest DIR-or-URL    place of the manifest; can be repeated, the highest serial counts;
                           default: .publisher in the repository, then manifest in each origin
  --origin DIR-or-URL      place of the SIFs; can be repeated, tried in order
  --cache DIR              where SIFs are kept, and the last good copy of the manifest; one for each user
  --public-key FILE        trusted key, or a directory of them (*.pem, *.pub); can be repeated
  --form auto|sandbox|sif  auto: the sandbox if it opens now, else the SIF; default auto
  --arch ARCH              amd64, arm64, …; default: this machine's
  --config FILE            all of these from a file: [resolver], key = value, several values one to an indented line
  --json                   the answer as a JSON object, with digests and where they are from

Each setting also has an environment variable, IMAGE_RESOLVER_PUBLIC_KEY and so on (values of a list separated by blanks).
Flags win over variables, variables over the file.

Exit status: 0 all well; 1 for the user to mend (no such image, blocked, other architecture); 2 usage or configuration;
3 a bug; 4 the host or the network.
"""


class _Line:
    """A parsed command line: ``words`` are what is no flag; ``flags`` setting -> values; ``config`` the file or None."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.flags: dict[str, list[str]] = {}
        self.config: str | None = None
        self.json = False
        self.help = False


def main() -> int:
    """Run the command with this process's arguments; the exit status."""
    notes = Notes()
    try:
        sys.stdout.write(_run(sys.argv[1:], notes) + "\n")
        sys.stdout.flush()
    except ResolverError as error:
        _say(notes.warnings)
        _say([str(error)])
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001 - the outermost frame: a bug has a status of its own
        sys.excepthook(*sys.exc_info())
        return 3
    _say(notes.warnings)
    return 0


def _run(arguments: Sequence[str], notes: Notes) -> str:
    line = _parsed(arguments)
    if line.help:
        return _HELP.rstrip()
    if not line.words or line.words[0] != "resolve" or len(line.words) != 2:  # noqa: PLR2004 - the command and its one argument
        raise UsageError("usage: image-resolver resolve NAME [flags]", hint="image-resolver --help")
    from publisher.resolver import lookup, resolve  # noqa: PLC0415 - help and usage need none of it

    gathered = config.gather(line.flags, os.environ, line.config)
    settings = config.Settings(gathered, lookup.go_name(os.uname().machine))
    answer = resolve.resolve(line.words[1], settings, time.time(), notes)
    if not line.json:
        return answer.path
    import json  # noqa: PLC0415 - imported with the manifest anyway

    return json.dumps(answer.to_json(notes), indent=2)


def _parsed(arguments: Sequence[str]) -> _Line:
    line = _Line()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            line.words += rest
            break
        if word in ("--help", "-h"):
            line.help = True
        elif word == "--json":
            line.json = True
        elif word.startswith("-") and word != "-":
            _take_value(line, word, rest)
        else:
            line.words.append(word)
    return line


def _take_value(line: _Line, word: str, rest: list[str]) -> None:
    """A flag with a value, ``--flag value`` or ``--flag=value``."""
    flag, equals, value = word.partition("=")
    name = flag[2:]
    if not flag.startswith("--") or name not in (*config.SETTINGS, "config"):
        raise UsageError(f"unknown flag {flag}", hint="image-resolver --help")
    if not equals:
        if not rest:
            raise UsageError(f"{flag} needs a value")
        value = rest.pop(0)
    if name == "config":
        line.config = value
    else:
        line.flags.setdefault(name, []).append(value)


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        sys.stderr.write(f"image-resolver: {line}\n")
