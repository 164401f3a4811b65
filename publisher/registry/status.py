"""What an answer's status means for the image: try again, denied, not there, or could not tell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from publisher.errors import DeniedError, NotFoundError, UnavailableError
from publisher.net.retry import TransientError

if TYPE_CHECKING:
    from publisher.registry.transport import RegistryResponse

_OK = 200
_LATER = (408, 425, 429)
_SERVER_ERRORS = 500
_REFUSED, _ABSENT = (401, 403), 404
_ABSENT_CODES = ("BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "NOT_FOUND", "TAG_UNKNOWN")
"""distribution-spec 1.1, "Error Codes"; NOT_FOUND is Harbor's."""
_ERROR_LIMIT = 64 * 1024  # bytes of an error's body


def busy(answer: RegistryResponse) -> None:
    """Raise TransientError for an answer that says "later": 429, 5xx and their like, with its ``Retry-After``."""
    if answer.status in _LATER or answer.status >= _SERVER_ERRORS:
        raise TransientError(f"{answer.host} answers {answer.status}", answer.retry_after)


async def check(
    answer: RegistryResponse, registry: str, what: str, accept: tuple[int, ...] = (_OK,), *, in_words: bool = False
) -> None:
    """Let an answer pass that has an accepted status.

    Args:
        answer: the answer.
        registry: who was asked.
        what: what for.
        accept: statuses that pass.
        in_words: a 404 counts only with an error code in its body.

    Raises:
        TransientError: later, or a blob store that does not like the way the registry sent us there.
        DeniedError: 401, 403.
        NotFoundError: 404, and it is a registry that says so: in its own form of errors, or under its own name. A proxy's or a
            captive portal's 404 says nothing about the image, and nothing may be removed for it.
        UnavailableError: anything else.
    """
    if answer.status in accept:
        return
    busy(answer)
    if answer.away:
        raise TransientError(f"{answer.host}, where {registry} keeps its blobs, answers {answer.status}")
    if answer.status in _REFUSED:
        raise DeniedError(f"{registry} does not show us {what}")
    if answer.status != _ABSENT:
        raise UnavailableError(f"{registry} answers {answer.status} when asked for {what}")
    if (says_registry(answer) and not in_words) or _codes(await answer.body(_ERROR_LIMIT)) & set(_ABSENT_CODES):
        raise NotFoundError(f"{registry} has no {what}")
    raise UnavailableError(f"{registry} answers 404 for {what}, but not as a registry does")


def says_registry(answer: RegistryResponse) -> bool:
    """Whether the answer calls itself a registry's (distribution-spec 1.1, "Legacy Docker support HTTP headers")."""
    return "Docker-Distribution-Api-Version" in answer.headers


def _codes(body: bytes) -> set[str]:
    try:
        return {str(error["code"]) for error in json.loads(body)["errors"]}
    except (ValueError, TypeError, KeyError, RecursionError):
        return set()
