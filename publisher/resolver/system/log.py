"""Messages on standard error: warnings and errors always, diagnostic lines with ``-v`` and ``-vv``.

Until :func:`configure` is called, :func:`info` and :func:`debug` return at once and nothing is imported, so that a warm answer
pays nothing for them. Query strings, user names, passwords and tokens are masked in every line.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger, LogRecord

QUIET, NORMAL, VERBOSE, DEBUG = -1, 0, 1, 2
"""Verbosities: errors only; warnings as well; decisions and failed requests as well (``-v``); everything (``-vv``)."""
TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON)
_PROGRAM = "image-resolver"
_SECRETS = (
    (r"(\w://[^\s/?#@]*)@", r"://TOKEN@"),
    (r"(\w://[^\s?'\"]*)\?[^\s'\"]*", r"\1"),
    (r"(authz(?:=|%3D)|bearer(?:[\s+:=]|%20)+|basic\s+)[^\s&\"'<>;,)]+", r"\1TOKEN"),
    (r"\beyJ[^\s&\"'<>;,)]+", "TOKEN"),
)
"""Patterns of secrets and their replacements: user info and queries of URLs, credentials in headers, JSON Web Tokens."""


class _Log:
    """The state of this process's log.

    Attributes:
        logger: the logger of the standard library, None until :func:`configure` was called.
        write: writes one line, line feed included.
    """

    logger: Logger | None = None
    write: Callable[[str], object]


def _write_stderr(line: str) -> None:
    """Write a line to what is standard error now."""
    sys.stderr.write(line)
    sys.stderr.flush()


_LOG = _Log()
_LOG.write = _write_stderr


def configure(verbosity: int, form: str = TEXT) -> None:
    """Switch diagnostic output on.

    Args:
        verbosity: from :data:`QUIET` to :data:`DEBUG`.
        form: :data:`TEXT`, or :data:`JSON` for one JSON object per line with ``time`` (seconds since the epoch), ``level``,
            ``pid`` and ``message``.
    """
    import logging  # noqa: PLC0415 - only those who ask for it pay for it

    line_of = _json_formatter() if form == JSON else _text_line
    mask = _masker()

    class Handler(logging.Handler):
        def emit(self, record: LogRecord) -> None:
            relay(f"{line_of(record, mask(record.getMessage()))}\n")

    levels = {QUIET: logging.ERROR, NORMAL: logging.WARNING, VERBOSE: logging.INFO, DEBUG: logging.DEBUG}
    _LOG.logger = logging.getLogger(_PROGRAM)
    _LOG.logger.setLevel(levels[max(QUIET, min(DEBUG, verbosity))])
    _LOG.logger.handlers = [Handler()]
    _LOG.logger.propagate = False


def reset() -> None:
    """Return to the state before :func:`configure`."""
    _LOG.logger = None
    _LOG.write = _write_stderr


def debug(message: str, *args: object) -> None:
    """Log a detail, shown with ``-vv``: ``message % args``. Do nothing before :func:`configure`."""
    if _LOG.logger is not None:
        _LOG.logger.debug(message, *args)


def info(message: str, *args: object) -> None:
    """Log a decision or a failed request, shown with ``-v``: ``message % args``. Do nothing before :func:`configure`."""
    if _LOG.logger is not None:
        _LOG.logger.info(message, *args)


def warning(message: str) -> None:
    """Write a warning for a person, unless ``-q`` was given."""
    if _LOG.logger is not None:
        _LOG.logger.warning("%s", message)
    else:
        relay(f"{_PROGRAM}: {_printable(message)}\n")


def error(message: str) -> None:
    """Write an error for a person."""
    if _LOG.logger is not None:
        _LOG.logger.error("%s", message)
    else:
        relay(f"{_PROGRAM}: {_printable(message)}\n")


def redirect(write: Callable[[str], object]) -> None:
    """Hand every later line of this process to ``write``: for a child process that has no standard error."""
    _LOG.write = write


def relay(lines: str) -> None:
    """Write formatted lines, of this process or of a child. A closed pipe or a full disk is no reason to fail."""
    try:  # noqa: SIM105 - contextlib costs a warm answer a millisecond
        _LOG.write(lines)
    except (OSError, ValueError):
        pass


def _printable(text: str) -> str:
    """Return a text with everything escaped that is not printable: a terminal would obey it, whoever wrote it (an image)."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _text_line(record: LogRecord, message: str) -> str:
    """Return a line for a person; diagnostic lines carry the time and the process, since several processes take part."""
    if record.levelname in ("WARNING", "ERROR"):
        return f"{_PROGRAM}: {message}"
    clock = time.strftime("%H:%M:%S", time.localtime(record.created))
    return f"{_PROGRAM}: {clock}.{int(record.msecs):03d} [{os.getpid()}] {message}"


def _json_formatter() -> Callable[[LogRecord, str], str]:
    """Return a function that gives a record's line as a JSON object."""
    import json  # noqa: PLC0415 - as above

    def line_of(record: LogRecord, message: str) -> str:
        level = record.levelname.lower()
        return json.dumps({"time": round(record.created, 3), "level": level, "pid": os.getpid(), "message": message})

    return line_of


def _masker() -> Callable[[str], str]:
    """Return a function that masks secrets in a message and puts it on one line."""
    import re  # noqa: PLC0415 - as above

    patterns = [(re.compile(pattern, re.IGNORECASE), replacement) for pattern, replacement in _SECRETS]

    def mask(message: str) -> str:
        text = _printable(" ".join(message.split()))
        for pattern, replacement in patterns:
            text = pattern.sub(replacement, text)
        return text

    return mask
