"""Bearer tokens: what a request needs to be allowed, and where the token that says so comes from.

A token is asked for anew with every request, so that one that was renewed in its file counts from then on, and one that is
minted here says no more than that request needs. Tokens are in no message, and in no ``repr``.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from publisher.errors import OriginError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

READ, CREATE, MODIFY = "storage.read", "storage.create", "storage.modify"
"""Capabilities of the WLCG token profile: create does not overwrite or delete, modify does."""
_SOUND = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)  # RFC 6750, section 2.1: b64token
_LARGEST = 1 << 16
_JWT = re.compile(r"eyJ[A-Za-z0-9._~+/=-]+", re.ASCII)
_TELLTALE = 12  # characters of a token that give it away


class TokenScope(NamedTuple):
    """A capability for a path and all below it; the path is absolute in the federation."""

    capability: str
    path: str


class TokenSource(Protocol):
    """Where tokens come from."""

    def bearer(self, rights: Sequence[TokenScope], base: str) -> str | None:
        """A token that gives ``rights``; None where none is to be shown.

        Args:
            rights: what the request needs.
            base: the path that scopes of the namespace's issuer are relative to, ``/`` in front.

        Raises:
            OriginError: there should be one, and it cannot be read or made.
        """


class NoTokens:
    """No tokens."""

    def bearer(self, _rights: Sequence[TokenScope], _base: str) -> str | None:
        """See :meth:`TokenSource.bearer`."""
        return None


class FileTokens:
    """A file that somebody keeps fresh; only the newest content counts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def bearer(self, _rights: Sequence[TokenScope], _base: str) -> str | None:
        """See :meth:`TokenSource.bearer`."""
        try:
            with self._path.open("rb") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IRWXO:
                    raise OriginError(f"the token file {self._path} is open to everybody", hint=f"chmod 600 {self._path}")
                content = file.read(_LARGEST)
        except OSError as error:
            raise OriginError(f"the token file {self._path} cannot be read: {error.strerror}") from None
        return _sound(content.decode("ascii", "replace").strip(), f"the token file {self._path}")


class EnvironmentTokens:
    """``BEARER_TOKEN`` or the file that ``BEARER_TOKEN_FILE`` names (WLCG bearer token discovery); none where neither is set."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def bearer(self, rights: Sequence[TokenScope], base: str) -> str | None:
        """See :meth:`TokenSource.bearer`."""
        token, path = (self._environ.get(name, "").strip() for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE"))
        if token:
            return _sound(token, "BEARER_TOKEN in the environment")
        return FileTokens(Path(path)).bearer(rights, base) if path else None


def hidden(text: str, token: str | None = None) -> str:
    """A text of somebody else's without what looks like a JSON Web Token, and without ``token``; also where it is cut short."""
    text = _JWT.sub("TOKEN", text)
    return text if not token else re.sub(re.escape(token[:_TELLTALE]) + r"\S*", "TOKEN", text)


def _sound(token: str, where: str) -> str:
    if not _SOUND.fullmatch(token):
        raise OriginError(f"{where} holds no token")
    return token
