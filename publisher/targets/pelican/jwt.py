"""Tokens that are made here with an issuer's private key: one for each request, with the scopes that the request needs.

The claims follow the WLCG Common JWT Profile 1.0; tokens are signed as ES256 (RFC 7518, section 3.4).
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jwt

from publisher.targets.pelican.tokens import scope_claim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

    from publisher.targets.pelican.tokens import TokenScope

ANY_AUDIENCE = "https://wlcg.cern.ch/jwt/v1/any"
"""The audience that every service accepts (WLCG profile)."""
_CLOCK_SKEW = 60  # seconds that a server's clock may be behind ours
_COORDINATE_SIZE = 32  # bytes of a P-256 coordinate


@dataclass(frozen=True)
class TokenClaims:
    """The claims that all tokens of an issuer have in common.

    Attributes:
        issuer: the issuer's URL, as servers know it.
        audience: the services that the tokens are for.
        subject: the user whom the tokens stand for.
        base: the path that scopes are relative to; the namespace's own if None.
        life: seconds that a token is valid for.
    """

    issuer: str
    audience: str = ANY_AUDIENCE
    subject: str = "image-publisher"
    base: str | None = None
    life: int = 600


class MintedTokens:
    """A source that makes a token for each request.

    Args:
        key: the issuer's private key, on the curve P-256.
        keyid: the key's name in the issuer's key set; its thumbprint (RFC 7638) if None, as Pelican names its keys.
        claims: the claims that all tokens have in common.
        clock: seconds since the epoch.
    """

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, keyid: str | None, claims: TokenClaims, clock: Callable[[], float]
    ) -> None:
        self._key = key
        self._keyid = keyid or thumbprint(key.public_key())
        self._claims = claims
        self._clock = clock

    def bearer(self, scopes: Sequence[TokenScope], base: str) -> str | None:
        """See :meth:`publisher.targets.pelican.tokens.TokenSource.bearer`.

        Raises:
            OriginError: a path is not below the base that the issuer can grant scopes for.
        """
        now, claims = int(self._clock()), self._claims
        payload = {
            "wlcg.ver": "1.0",
            "iss": claims.issuer,
            "sub": claims.subject,
            "aud": claims.audience,
            "jti": secrets.token_hex(16),
            "iat": now,
            "nbf": now - _CLOCK_SKEW,
            "exp": now + claims.life,
            "scope": scope_claim(scopes, base if claims.base is None else claims.base),
        }
        return jwt.encode(payload, self._key, algorithm="ES256", headers={"kid": self._keyid})


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the thumbprint of a P-256 key by RFC 7638: the sha256 of its JSON members, sorted and without spaces."""
    numbers = key.public_numbers()
    point = {name: _base64(number.to_bytes(_COORDINATE_SIZE, "big")) for name, number in (("x", numbers.x), ("y", numbers.y))}
    members = json.dumps({"crv": "P-256", "kty": "EC", **point}, separators=(",", ":"))
    return _base64(hashlib.sha256(members.encode()).digest())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
