"""The command line, parsed by hand: argparse would cost a fifth of the time that a warm answer takes."""

from __future__ import annotations

import os
import sys

from publisher.resolver.config import settings as config
from publisher.resolver.errors import ResolverUsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class CommandLine:
    """A parsed command line.

    Attributes:
        words: what is no flag, the command first.
        flags: setting -> values.
        config: the configuration file, None for none.
        json, force, help: whether these flags were given.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        """Parse.

        Raises:
            ResolverUsageError: a flag that does not exist, or has no value.
        """
        self.words: list[str] = []
        self.flags: dict[str, list[str]] = {}
        self.config: str | None = None
        self.json = False
        self.force = False
        self.help = False
        rest = list(arguments)
        while rest:
            word = rest.pop(0)
            if word == "--":
                self.words += rest
                break
            if word in ("--help", "-h"):
                self.help = True
            elif word == "--json":
                self.json = True
            elif word == "--force":
                self.force = True
            elif word.startswith("-") and word != "-":
                self._take_value(word, rest)
            else:
                self.words.append(word)

    def _take_value(self, word: str, rest: list[str]) -> None:
        """A flag with a value, ``--flag value`` or ``--flag=value``."""
        flag, equals, value = word.partition("=")
        name = flag[2:]
        if not flag.startswith("--") or name not in (*config.SETTINGS, "config"):
            raise ResolverUsageError(f"unknown flag {flag}", hint="image-resolver --help")
        if not equals:
            if not rest:
                raise ResolverUsageError(f"{flag} needs a value")
            value = rest.pop(0)
        if name == "config":
            self.config = value
        else:
            self.flags.setdefault(name, []).append(value)

    def settings(self, environ: Mapping[str, str]) -> config.ResolverSettings:
        """The settings of line, environment and file together.

        Raises:
            ResolverUsageError: something is missing, unknown, or has no such value.
        """
        from publisher.resolver.config import machine  # noqa: PLC0415 - help and usage need none of it

        return config.ResolverSettings(config.gather(self.flags, environ, self.config), machine.go_name(os.uname().machine))


def say(lines: Sequence[str]) -> None:
    """Lines for a person, on standard error."""
    for line in lines:
        sys.stderr.write(f"image-resolver: {line}\n")
