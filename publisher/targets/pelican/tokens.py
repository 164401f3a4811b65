"""Bearer tokens: the scopes that a request needs, and the sources of tokens that grant them.

A source is asked anew for every request, so that a token renewed in its file is used from then on, and a token made here grants
no more than that request needs. No message and no ``repr`` contains a token.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from publisher.errors import OriginError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

READ, CREATE, MODIFY = "storage.read", "storage.create", "storage.modify"
"""Capabilities of the WLCG token profile: create allows neither overwriting nor deleting, modify allows both."""
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)  # RFC 6750, section 2.1: b64token
_MAX_SIZE = 1 << 16  # bytes of a token file
_JWT = re.compile(r"eyJ[A-Za-z0-9._~+/=-]+", re.ASCII)
_RECOGNIZABLE = 12  # characters at the beginning of a token by which it is recognized in a text


class TokenScope(NamedTuple):
    """A capability for a path and everything below it; the path is absolute in the federation."""

    capability: str
    path: str


class TokenSource(Protocol):
    """A source of bearer tokens."""

    def bearer(self, scopes: Sequence[TokenScope], base: str) -> str | None:
        """Return a token that grants ``scopes``; None if requests are to be sent without one.

        Args:
            scopes: what the request needs.
            base: the path, beginning with ``/``, that the scopes of the namespace's issuer are relative to.

        Raises:
            OriginError: a token is configured but cannot be read or made.
        """


class NoTokens:
    """A source without tokens."""

    def bearer(self, _scopes: Sequence[TokenScope], _base: str) -> str | None:
        """See :meth:`TokenSource.bearer`."""
        return None


class FileTokens:
    """A token file that another program keeps fresh; it is read for every request."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def bearer(self, _scopes: Sequence[TokenScope], _base: str) -> str | None:
        """See :meth:`TokenSource.bearer`."""
        try:
            with self._path.open("rb") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IRWXO:
                    raise OriginError(f"the token file {self._path} is open to everybody", hint=f"chmod 600 {self._path}")
                content = file.read(_MAX_SIZE)
        except OSError as error:
            raise OriginError(f"the token file {self._path} cannot be read: {error.strerror}") from None
        return validated(content.decode("ascii", "replace").strip(), f"the token file {self._path}")


class EnvironmentTokens:
    """The token in ``BEARER_TOKEN``, or in the file that ``BEARER_TOKEN_FILE`` names (WLCG bearer token discovery)."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def bearer(self, scopes: Sequence[TokenScope], base: str) -> str | None:
        """See :meth:`TokenSource.bearer`. Return None if neither variable is set."""
        token, path = (self._environ.get(name, "").strip() for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE"))
        if token:
            return validated(token, "BEARER_TOKEN in the environment")
        return FileTokens(Path(path)).bearer(scopes, base) if path else None


def claims(token: str) -> dict[str, object]:
    """Return what a JSON Web Token says of itself, without verifying it; empty if it is not one."""
    try:
        payload = token.split(".")[1]
        value = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def redact(text: str, token: str | None = None) -> str:
    """Return a text with ``TOKEN`` in place of every JSON Web Token and of ``token``, even if they are cut short."""
    text = _JWT.sub("TOKEN", text)
    return text if not token else re.sub(re.escape(token[:_RECOGNIZABLE]) + r"\S*", "TOKEN", text)


def scope_claim(scopes: Sequence[TokenScope], base: str) -> str:
    """Return the claim ``scope`` of a token, with paths relative to the base that its issuer grants scopes for.

    Raises:
        OriginError: a path is not below the base.
    """
    return " ".join(f"{scope.capability}:{_relative(scope.path, base)}" for scope in scopes)


def validated(token: str, where: str) -> str:
    """Return a token, or raise OriginError if a text cannot be one; ``where`` says for people what it comes from."""
    if not _TOKEN.fullmatch(token):
        raise OriginError(f"{where} does not contain a valid token")
    return token


def _relative(path: str, base: str) -> str:
    base = base.rstrip("/")
    if path == base:
        return "/"
    if not path.startswith(f"{base}/"):
        raise OriginError(
            f"{path} is not below {base}, the path that the issuer of tokens grants scopes for",
            hint="check the setting token_base",
        )
    return path.removeprefix(base)
