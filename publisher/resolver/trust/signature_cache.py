"""Signatures that were checked before: starting openssl would take a sixth of the time that a warm answer takes.

The memory stands beside the last good copies of the manifest: for each index whose signature was right, the sha256 of its bytes
together with the ids of all keys that were trusted then. Other bytes or other keys, a revoked one among them, and openssl is
asked again. Age, serial, type and repository are looked at every time.

Trust: who can write there is this user, and could as well rewrite the SIFs in the cache (see :mod:`publisher.resolver.cache.cache`).
"""

from __future__ import annotations

import hashlib
import os

from publisher.contract.manifest import unseal
from publisher.resolver.trust.signatures import verified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = 4
"""Indexes that are remembered: the repository's copy may lag behind the origin's for days, and each job reads both."""
_LINE = 65  # bytes: 64 hexadecimal digits and the line's end


class SignatureCache:
    """The memory at ``path``; None for none."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def payload(self, content: bytes, keys: Mapping[str, bytes]) -> bytes:
        """The payload of an index's envelope that a trusted key has signed; arguments and errors as of :func:`verified`."""
        line = hashlib.sha256(b"\0".join([content, *sorted(map(str.encode, keys))])).hexdigest().encode() + b"\n"
        known = self._known()
        if line in known:
            return unseal(content)[0]
        payload = verified(content, keys)
        self._remember([line, *known][:_MOST])
        return payload

    def _known(self) -> list[bytes]:
        if self._path is None:
            return []
        try:
            with open(self._path, "rb") as file:
                return [line for line in file.read(_MOST * _LINE).splitlines(keepends=True) if len(line) == _LINE]
        except OSError:
            return []

    def _remember(self, lines: list[bytes]) -> None:
        if self._path is None:
            return
        from publisher.contract import files  # noqa: PLC0415 - once for each index

        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            files.replace(self._path, b"".join(lines))
        except OSError:
            pass  # then it is checked again
