"""Who may sign the manifest's index: the trusted keys, and the keys that a trusted key's keys document names.

Each index brings a keys document along (:mod:`publisher.contract.keys_document`). The one with the highest version counts for all
indexes, also for those that brought an older one: a key that it does not name any more is revoked from the moment that any source
shows it. It is cached, so that no source can take that back.
"""

from __future__ import annotations

import time

from publisher.contract.errors import ManifestError
from publisher.contract.keys_document import KeysDocument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from publisher.contract.manifest import Envelope

    Verify = Callable[..., bytes]
    """:func:`publisher.resolver.trust.signatures.verify`, or a function with a cache that is called like it."""


class SigningAuthority:
    """The keys that may sign, according to the newest keys document.

    Args:
        trusted: the trusted keys, as :func:`publisher.resolver.trust.signatures.load_keys` returns them.
        repository: name of the repository, which a keys document must carry.
        now: this host's clock, seconds since the epoch.
        verify: verifies an envelope.

    Attributes:
        newest: the envelope of the newest keys document that a trusted key has signed; None if there is none.
    """

    def __init__(self, trusted: Mapping[str, bytes], repository: str, now: float, verify: Verify) -> None:
        self.newest: Envelope | None = None
        self._document: KeysDocument | None = None
        self._trusted = trusted
        self._repository = repository
        self._now = now
        self._verify = verify

    def learn(self, envelope: Envelope) -> None:
        """Use a keys document from now on if it is newer than the known one.

        Raises:
            ManifestError: it is newer, but no trusted key has signed it, or it is not valid.
            ExpectedError: openssl cannot be used.
        """
        if self.newest is not None and envelope.payload == self.newest.payload:
            return
        document = KeysDocument.parse(envelope.payload, self._repository)
        if self._document is None or document.version > self._document.version:
            self._verify(envelope, self._trusted, part="keys document")
            self.newest, self._document = envelope, document

    def check(self, envelope: Envelope) -> tuple[bytes, bool]:
        """Return the payload of an index, and whether all keys that signed it have expired.

        Raises:
            ManifestError: too few of the keys that may sign have signed it.
            ExpectedError: openssl cannot be used.
        """
        document = self._document
        if document is None or any(keyid in self._trusted for keyid, _ in envelope.signatures):
            return self._verify(envelope, self._trusted), False
        valid = document.valid_keys(self._now)
        signers = {keyid: document.keys[keyid] for keyid, _ in envelope.signatures if keyid in document.keys}
        if not signers or not valid.keys().isdisjoint(signers):
            return self._verify(envelope, valid, document.threshold), False
        if any(key.until > self._now for key in signers.values()):
            raise ManifestError(
                "the keys document comes from the future; check the clocks of this host and of the root key's host"
            )
        return self._verify(envelope, {keyid: key.pem() for keyid, key in signers.items()}, document.threshold), True

    def describe_expiry(self) -> str:
        """Return why an index is not used whose keys have expired."""
        untils = [] if self._document is None else [key.until for key in self._document.keys.values()]
        day = time.strftime("%Y-%m-%d", time.gmtime(max(untils, default=0)))
        return f"the keys that may sign the manifest were valid until {day}, and no newer keys document can be fetched"
