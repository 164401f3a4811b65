"""The error that a server's refusal becomes: one that is retried, one that is final, or a full disk."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from publisher.errors import OriginError, SpaceError
from publisher.net.retry import TransientError
from publisher.targets.pelican.tokens import redact

if TYPE_CHECKING:
    from publisher.targets.pelican.transport import OriginResponse

_log = logging.getLogger(__name__)
DENIED = (401, 403)
NOT_FOUND = 404
_LOCKED, _TOO_MANY_REQUESTS, _INSUFFICIENT_STORAGE, _SERVER_ERROR = 423, 429, 507, 500
_REDIRECTS = range(300, 400)
_MAX_MESSAGE = 300  # characters of a response that are shown
_MAX_BODY = 1 << 16
_FULL_MESSAGES = ("no space left", "quota exceeded")
_NOT_FOUND_MESSAGES = ("not a directory",)


class OriginDeniedError(OriginError):
    """A server denies access: the token is missing, invalid or expired, or does not grant enough."""


class OriginRefusal(NamedTuple):
    """A response that refuses a request.

    Attributes:
        host: the server that refused.
        status: the HTTP status.
        message: the body, as one short line of printable characters without the token of the request; empty for HTML.
        retry_after: seconds that the server asks us to wait, None if it does not.
    """

    host: str
    status: int
    message: str
    retry_after: float | None


async def read_refusal(response: OriginResponse) -> OriginRefusal:
    """Read a response that is not a success to its end."""
    text = (await response.body(_MAX_BODY)).decode("utf-8", "replace")
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    message = "" if "<" in text else redact(line, response.bearer)[:_MAX_MESSAGE]
    _log.debug("%s refused the request with status %d: %s", response.host, response.status, message or "no message")
    return OriginRefusal(response.host, response.status, message, response.retry_after)


def means_absent(status: int, message: str) -> bool:
    """Return whether a refusal means that there is no such object: XRootD sends 500 if a part of the path is a file."""
    return status == NOT_FOUND or (status >= _SERVER_ERROR and any(text in message.lower() for text in _NOT_FOUND_MESSAGES))


def to_error(refusal: OriginRefusal, action: str) -> Exception:
    """Return the error for a refusal; ``action`` is what the server was asked to do, as ``store sif/ab/x.sif``."""
    host, status, message, retry_after = refusal
    reason = f"{host} does not {action}: status {status}{': ' if message else ''}{message}"
    if status == _INSUFFICIENT_STORAGE or any(text in message.lower() for text in _FULL_MESSAGES):
        return SpaceError(reason, hint="free space at the origin and run again")
    if status in DENIED:
        hint = "the token is missing or expired, or does not grant the scope; docs/osdf.md lists the scopes"
        return OriginDeniedError(reason, hint=hint)
    if status in _REDIRECTS:
        return OriginError(f"{host} does not {action}: it redirects the request, and redirects are not followed")
    if status in (_LOCKED, _TOO_MANY_REQUESTS) or (status >= _SERVER_ERROR and not means_absent(status, message)):
        return TransientError(reason, retry_after)
    return OriginError(reason)
