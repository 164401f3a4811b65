"""Logging of the publisher by the standard library: lines of text or JSON objects, with credentials redacted.

Every module logs to ``logging.getLogger(__name__)``; the command line calls :func:`configure` once. Redaction is the second
line of defence: messages should name hosts, never URLs or headers.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import IO, Any

TEXT, JSON = "text", "json"
_HANDLER = "publisher"
_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)  # of -q, nothing, -v, -vv
_REDACTED = "[redacted]"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_RULES = (
    # The value of an Authorization header, with or without the name of its scheme.
    (
        r"(?i)\b((?:proxy-)?authorization[\"']?\s*[:=]\s*)[\"']?(?:(?:basic|bearer|digest|negotiate)\s+)?[^\s\"',;]+",
        r"\1" + _REDACTED,
    ),
    # A scheme with its credentials, but not the words that follow in prose ("basic authentication").
    (r"\b((?i:basic|bearer)\s+)(?=[a-z]*[^a-z\s])[A-Za-z0-9._~+/-]{8,}=*", r"\1" + _REDACTED),
    # A JSON Web Token: a base64 of {"…
    (r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?", _REDACTED),
    (rf"({_SCHEME})[^\s/?#]*@", rf"\1{_REDACTED}@"),
    (rf"({_SCHEME}[^\s?#\"'<>]*)\?[^\s\"'<>]*", rf"\1?{_REDACTED}"),
    # The query of a URL without its host: /path?name=value
    (r"((?:^|(?<=[\s\"'(]))/[^\s?#\"'<>]*)\?[^\s\"'<>]*=[^\s\"'<>]*", rf"\1?{_REDACTED}"),
    # A flag of a program, or a field: --password VALUE, token=VALUE
    (
        r"(?i)(--[\w-]*(?:password|passwd|secret|token)[\w-]*[=\s]\s*|\b(?:password|passwd|secret|token)=)[^\s\"'&,;]+",
        r"\1" + _REDACTED,
    ),
)
_PATTERNS = tuple((re.compile(pattern), replacement) for pattern, replacement in _RULES)
_STANDARD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""Attributes that every log record has; the others came by ``extra=``."""


def configure(verbosity: int, form: str, stream: IO[str] | None = None) -> None:
    """Send the log to a stream; a second call replaces what the first one set.

    Args:
        verbosity: -1 for errors alone, 0 for warnings too, 1 for INFO, 2 for DEBUG. Other packages log warnings at the most.
        form: :data:`TEXT` or :data:`JSON` (one object per line).
        stream: where lines go; None for whatever ``sys.stderr`` is at that time, so that progress bars stay below the log.
    """
    level = _LEVELS[min(max(verbosity, -1), 2) + 1]
    handler = _Handler(stream)
    handler.setFormatter(JsonFormatter() if form == JSON else TextFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == _HANDLER]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("publisher").setLevel(level)


def redact(text: str) -> str:
    """Return a text without credentials: Authorization values, bearer tokens, JWTs, passwords and query strings in URLs."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def printable(text: str) -> str:
    """Return a text with everything escaped that is not printable: a terminal would obey it, whoever wrote it (an image)."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


class TextFormatter(logging.Formatter):
    """A formatter of lines for people: time (UTC), level, logger, message; a traceback follows in lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, with control characters of the message escaped."""
        message = printable(redact(record.getMessage()))
        line = f"{_time(record)} {record.levelname} {record.name}: {message}"
        traceback = _traceback(record)
        return line if traceback is None else "\n".join([line, *map(printable, traceback.split("\n"))])


class JsonFormatter(logging.Formatter):
    """A formatter of JSON objects: ``time`` (UTC), ``level``, ``logger``, ``message``, ``exception`` if any, and extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object of a record on one line."""
        value = {name: _redacted(field) for name, field in vars(record).items() if name not in _STANDARD}
        value |= {"time": _time(record), "level": record.levelname, "logger": record.name}
        value["message"] = redact(record.getMessage())
        traceback = _traceback(record)
        if traceback is not None:
            value["exception"] = traceback
        return json.dumps(value)


class _Handler(logging.StreamHandler[Any]):
    """A handler for a stream, or for whatever ``sys.stderr`` is when a record comes."""

    def __init__(self, stream: IO[str] | None) -> None:
        super().__init__(stream)
        self.set_name(_HANDLER)
        self._follows_stderr = stream is None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        if self._follows_stderr:
            self.stream = sys.stderr
        super().emit(record)


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _traceback(record: logging.LogRecord) -> str | None:
    return redact(logging.Formatter().formatException(record.exc_info)) if record.exc_info else None


def _redacted(value: object) -> object:
    """Return a value that JSON can show, with credentials redacted in every text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(item) for item in value]
    return redact(str(value))
