"""The meaning of an HTTP status for an image: retry, access denied, not found, or unknown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from publisher.errors import DeniedError, NotFoundError, UnavailableError
from publisher.net.retry import TransientError

if TYPE_CHECKING:
    from publisher.registry.transport import RegistryResponse

_OK = 200
_RETRY = (408, 425, 429)
_SERVER_ERRORS = 500
_DENIED, _NOT_FOUND = (401, 403), 404
_NOT_FOUND_CODES = ("BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "NOT_FOUND", "TAG_UNKNOWN")
"""The codes of distribution-spec 1.1, "Error Codes", and Harbor's NOT_FOUND."""
_ERROR_LIMIT = 64 * 1024  # bytes of an error's body


def raise_if_transient(response: RegistryResponse) -> None:
    """Raise TransientError, with the response's ``Retry-After``, for a status that calls for a retry: 408, 425, 429 or 5xx."""
    if response.status in _RETRY or response.status >= _SERVER_ERRORS:
        raise TransientError(f"{response.host} answered {response.status}", response.retry_after)


async def check(
    response: RegistryResponse, registry: str, what: str, accept: tuple[int, ...] = (_OK,), *, needs_error_code: bool = False
) -> None:
    """Return if the response has an accepted status; otherwise raise the error that it means.

    Args:
        response: the response.
        registry: the registry that was asked, for messages.
        what: what it was asked for, for messages.
        accept: the accepted statuses.
        needs_error_code: a 404 means "not found" only if its body has an error code.

    Raises:
        TransientError: the status calls for a retry, or the blob store that the registry redirects to refuses the request.
        DeniedError: the status is 401 or 403.
        NotFoundError: the status is 404 and comes from a registry: the body has an error code, or a header names the registry
            API. A 404 of a proxy or captive portal says nothing about the image and must not cause a removal.
        UnavailableError: any other status.
    """
    if response.status in accept:
        return
    raise_if_transient(response)
    if response.is_redirected:
        raise TransientError(f"{response.host}, to which {registry} redirects, answered {response.status}")
    if response.status in _DENIED:
        raise DeniedError(f"{registry} denies access to {what}")
    if response.status != _NOT_FOUND:
        raise UnavailableError(f"{registry} answered {response.status} to a request for {what}")
    if (is_from_registry(response) and not needs_error_code) or _codes(await response.body(_ERROR_LIMIT)) & set(_NOT_FOUND_CODES):
        raise NotFoundError(f"{registry} has no {what}")
    raise UnavailableError(f"{registry} answered 404 for {what}, but the response is not one of a registry")


def is_from_registry(response: RegistryResponse) -> bool:
    """Return whether a header names the registry API (distribution-spec 1.1, "Legacy Docker support HTTP headers")."""
    return "Docker-Distribution-Api-Version" in response.headers


def _codes(body: bytes) -> set[str]:
    try:
        return {str(error["code"]) for error in json.loads(body)["errors"]}
    except (ValueError, TypeError, KeyError, RecursionError):
        return set()
