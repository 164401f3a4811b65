"""The command line, parsed by hand because argparse would take a fifth of the time of a warm answer."""

from __future__ import annotations

import os

from publisher.resolver.config import settings as config
from publisher.resolver.errors import ResolverUsageError
from publisher.resolver.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SWITCHES = {"--help": "help", "-h": "help", "--json": "json", "--force": "force", "--used": "used", "--version": "version"}
_VERBOSITIES = {"-v": 1, "--verbose": 1, "-vv": 2, "-q": -1, "--quiet": -1}
_CONFIG, _LOG_FORMAT = "config", "log-format"


class CommandLine:
    """A parsed command line.

    Attributes:
        words: the arguments that are not flags, the command first.
        flags: setting -> values.
        config: the configuration file, None if none was given.
        json: whether ``--json`` was given.
        force: whether ``--force`` was given.
        used: whether ``--used`` was given.
        help: whether ``--help`` was given.
        version: whether ``--version`` was given.
        verbosity: what :func:`publisher.resolver.system.log.configure` expects: -1 for ``-q``, 1 for ``-v``, 2 for ``-vv``.
        log_format: one of :data:`publisher.resolver.system.log.FORMATS`.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        """Parse the arguments.

        Raises:
            ResolverUsageError: a flag does not exist or has no value.
        """
        self.words: list[str] = []
        self.flags: dict[str, list[str]] = {}
        self.config: str | None = None
        self.json = False
        self.force = False
        self.used = False
        self.help = False
        self.version = False
        self.verbosity = log.NORMAL
        self.log_format = log.TEXT
        rest = list(arguments)
        while rest:
            word = rest.pop(0)
            if word == "--":
                self.words += rest
                break
            if word in _SWITCHES:
                setattr(self, _SWITCHES[word], True)
            elif word in _VERBOSITIES:
                self._add_verbosity(_VERBOSITIES[word])
            elif word.startswith("-") and word != "-":
                self._parse_flag(word, rest)
            else:
                self.words.append(word)

    def configure_log(self) -> None:
        """Switch diagnostic output on if a flag asks for it; otherwise the log stays as it is and costs nothing."""
        if self.verbosity != log.NORMAL or self.log_format != log.TEXT:
            log.configure(self.verbosity, self.log_format)

    def settings(self, environ: Mapping[str, str]) -> config.ResolverSettings:
        """Return the settings of command line, environment and configuration file together.

        Raises:
            ResolverUsageError: a setting is missing, unknown, or has an invalid value.
        """
        from publisher.resolver.config import machine  # noqa: PLC0415 - help and usage need none of it

        return config.ResolverSettings(config.gather(self.flags, environ, self.config), machine.go_name(os.uname().machine))

    def _add_verbosity(self, step: int) -> None:
        """Count ``-v`` and ``-vv`` together; ``-q`` wins over them."""
        if step < 0 or self.verbosity < 0:
            self.verbosity = log.QUIET
        else:
            self.verbosity = min(log.DEBUG, self.verbosity + step)

    def _parse_flag(self, word: str, rest: list[str]) -> None:
        """Parse a flag with a value: ``--flag value`` or ``--flag=value``."""
        flag, equals, value = word.partition("=")
        name = flag[2:]
        if not flag.startswith("--") or name not in (*config.SETTINGS, _CONFIG, _LOG_FORMAT):
            from publisher.resolver.config.similar import similar_hint  # noqa: PLC0415 - only mistakes need it

            known = [*(f"--{setting}" for setting in (*config.SETTINGS, _CONFIG, _LOG_FORMAT)), *_SWITCHES, *_VERBOSITIES]
            raise ResolverUsageError(f"unknown flag {flag}", hint=similar_hint(flag, known, "image-resolver --help"))
        if not equals:
            if not rest:
                raise ResolverUsageError(f"{flag} needs a value")
            value = rest.pop(0)
        if name == _CONFIG:
            self.config = value
        elif name == _LOG_FORMAT:
            if value not in log.FORMATS:
                raise ResolverUsageError(f"{flag} {value!r} must be one of {', '.join(log.FORMATS)}")
            self.log_format = value
        else:
            self.flags.setdefault(name, []).append(value)
