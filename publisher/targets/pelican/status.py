"""What a server's refusal comes to: tried again, given up, or no room."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from publisher.errors import OriginError, SpaceError
from publisher.net.retry import TransientError
from publisher.targets.pelican.tokens import hidden

if TYPE_CHECKING:
    from publisher.targets.pelican.transport import OriginResponse

REFUSED = (401, 403)
MISSING = 404
_LOCKED, _MANY, _FULL, _SERVER = 423, 429, 507, 500
_MOVED = range(300, 400)
_WORDS = 300  # characters of an answer that are shown
_MOST = 1 << 16
_NO_ROOM = ("no space left", "quota exceeded")
_ABSENT = ("not a directory",)


class OriginDeniedError(OriginError):
    """A server refuses: a token is missing, wrong or over, or does not say enough."""


class OriginRefusal(NamedTuple):
    """An answer that is a refusal.

    Attributes:
        host: who answered.
        status: of HTTP.
        said: what he said, as one short line of printable characters without the token that he was shown.
        later: seconds that he asks us to stay away, None where he does not.
    """

    host: str
    status: int
    said: str
    later: float | None


async def refused(answer: OriginResponse) -> OriginRefusal:
    """Read an answer to its end."""
    text = (await answer.body(_MOST)).decode("utf-8", "replace")
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    said = "" if "<" in text else hidden(line, answer.bearer)[:_WORDS]  # nothing of a page for people
    return OriginRefusal(answer.host, answer.status, said, answer.retry_after)


def means_absent(status: int, said: str) -> bool:
    """Whether there is no such object: XRootD says 500 where a part of the path is a file."""
    return status == MISSING or (status >= _SERVER and any(word in said.lower() for word in _ABSENT))


def failure(refused: OriginRefusal, doing: str) -> Exception:
    """The error that a refusal comes to; ``doing`` is what was to be done, as ``store sif/ab/x.sif``."""
    host, status, said, later = refused
    reason = f"{host} does not {doing}: status {status}{': ' if said else ''}{said}"
    if status == _FULL or any(word in said.lower() for word in _NO_ROOM):
        return SpaceError(reason, hint="make room at the origin and run again")
    if status in REFUSED:
        return OriginDeniedError(reason, hint="the token is missing, over, or does not allow it; docs/osdf.md has the scopes")
    if status in _MOVED:
        return OriginError(f"{host} does not {doing}: it sends us elsewhere, and that is not followed")
    if status in (_LOCKED, _MANY) or (status >= _SERVER and not means_absent(status, said)):
        return TransientError(reason, later)
    return OriginError(reason)
