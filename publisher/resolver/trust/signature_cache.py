"""A cache of verified signatures: starting openssl would take a sixth of the time of a warm answer.

The cache is a file beside the cached manifest. For each index and keys document with valid signatures it has a sha256 of payload
and signatures, of the number of signatures that it needs, and of the ids of all keys that could have signed it then. Another
payload or other keys, such as after a revocation, run openssl again. Age, serial, type and repository are checked every time, and
so is until when a key may sign.

Trust: only this user can write there, who could rewrite the SIFs in the cache as well (see
:mod:`publisher.resolver.cache.cache`).
"""

from __future__ import annotations

import os

from publisher.contract.quickhash import sha256
from publisher.resolver.trust import signatures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.contract.manifest import Envelope

_MAX_ENTRIES = 6
"""Indexes and keys documents to remember: the repository's copies may lag behind the origin's for days; each job reads both."""
_LINE_BYTES = 65  # 64 hexadecimal digits and a line feed


class SignatureCache:
    """The cache in the file at ``path``. With None nothing is cached."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def verify(self, envelope: Envelope, keys: Mapping[str, bytes], threshold: int = 1, *, part: str = "index") -> bytes:
        """Return the payload of an envelope; see :func:`publisher.resolver.trust.signatures.verify`."""
        signed = [part for keyid, signature in envelope.signatures for part in (keyid.encode(), signature)]
        lists = ([b"%d" % threshold, envelope.payload], signed, sorted(map(str.encode, keys)))
        # with lengths, so that no two calls hash the same bytes
        joined = b"".join(b"%d:" % len(parts) + b"".join(b"%d:%b" % (len(part), part) for part in parts) for parts in lists)
        line = sha256(joined).hexdigest().encode() + b"\n"
        lines = self._read()
        if line in lines:
            return envelope.payload
        payload = signatures.verify(envelope, keys, threshold, part=part)
        self._write([line, *lines][:_MAX_ENTRIES])
        return payload

    def _read(self) -> list[bytes]:
        if self._path is None:
            return []
        try:
            with open(self._path, "rb") as file:
                lines = file.read(_MAX_ENTRIES * _LINE_BYTES).splitlines(keepends=True)
        except OSError:
            return []
        return [line for line in lines if len(line) == _LINE_BYTES]

    def _write(self, lines: list[bytes]) -> None:
        if self._path is None:
            return
        from publisher.contract import files  # noqa: PLC0415 - once for each index

        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            files.replace(self._path, b"".join(lines))
        except OSError:
            pass  # the signature is verified again next time
