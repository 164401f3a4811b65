"""The only module that imports sigstore, and only when a bundle is verified: it takes a second and brings many packages along."""

from __future__ import annotations

import threading
import urllib.request
from typing import TYPE_CHECKING

from publisher.errors import SignatureError, UsageError
from publisher.net.addresses import AddressPolicy
from publisher.net.http_errors import HttpRefusal
from publisher.net.small_files import SmallFiles
from publisher.provenance.sigstore_root import fetch_trust_root

if TYPE_CHECKING:
    from pathlib import Path

    from sigstore.verify import Verifier

    from publisher.net.small_files import Resolver

_REFUSAL = HttpRefusal(UsageError, untrusted="name the authority's certificate with SSL_CERT_FILE=FILE")


class BundleVerifier:
    """A verifier of Sigstore bundles; its trust root is loaded when the first bundle comes. Threads may share it.

    Args:
        trust_root: ``trusted_root.json`` of a Sigstore instance; None for the public instance, asked by TUF.
        policy: which addresses the public instance may have.
        resolver: looks up the addresses of names; None for the host's own.
    """

    def __init__(self, trust_root: Path | None, policy: AddressPolicy | None = None, resolver: Resolver | None = None) -> None:
        self._trust_root = trust_root
        self._policy = policy or AddressPolicy()
        self._resolver = resolver
        self._lock = threading.Lock()
        self._verifier: Verifier | None = None

    def payload(self, bundle: bytes, identity: str, issuer: str) -> tuple[str, bytes]:
        """Return type and bytes of what a bundle's DSSE envelope contains, if it was signed by an identity of an issuer.

        Raises:
            SignatureError: the bundle is not valid, or has another signer.
            UsageError: sigstore is not installed, or the trust root cannot be loaded.
        """
        verifier = self._load()
        from sigstore.errors import Error  # noqa: PLC0415
        from sigstore.models import Bundle  # noqa: PLC0415
        from sigstore.verify.policy import AnyOf, Identity, OIDCIssuer, OIDCIssuerV2  # noqa: PLC0415

        try:
            parsed = Bundle.from_json(bundle)
            verified = verifier.verify_dsse(parsed, Identity(identity=identity))
        except (Error, ValueError) as error:  # ValueError: of a certificate or number that is not valid
            raise SignatureError(f"the bundle does not verify: {' '.join(str(error).split())[:300]}") from error
        try:  # two extensions of the certificate say who vouches for the identity; the first one is deprecated
            AnyOf([OIDCIssuer(issuer), OIDCIssuerV2(issuer)]).verify(parsed.signing_certificate)
        except Error as error:
            raise SignatureError(f"another issuer than {issuer} vouches for the identity in the certificate") from error
        return verified

    def _load(self) -> Verifier:
        with self._lock:
            if self._verifier is None:
                self._verifier = self._make()
            return self._verifier

    def _make(self) -> Verifier:
        try:
            from sigstore.errors import Error  # noqa: PLC0415
            from sigstore.models import TrustedRoot  # noqa: PLC0415
            from sigstore.verify import Verifier  # noqa: PLC0415
        except ImportError as error:
            hint = "install ospool-image-publisher[signatures] on the publisher host"
            raise UsageError("the entry requires a signature by an identity, and sigstore is not installed", hint=hint) from error
        try:
            return Verifier(trusted_root=TrustedRoot.from_file(str(self._trust_root or self._fetch())))
        except (Error, UsageError, OSError, ValueError) as error:
            place = self._trust_root or "the public instance"
            hint = "check the setting sigstore_root"
            raise UsageError(f"the Sigstore trust root of {place} cannot be loaded: {error}", hint=hint) from error

    def _fetch(self) -> Path:
        """Return the file with the trust root of the public instance."""
        proxies = urllib.request.getproxies_environment()
        return fetch_trust_root(SmallFiles(_REFUSAL, self._policy, proxies=proxies, resolver=self._resolver))
