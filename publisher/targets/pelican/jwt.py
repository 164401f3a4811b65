"""Tokens made here, with an issuer's private key: each for one request, and for what that request needs.

The form is the WLCG Common JWT Profile 1.0, signed as ES256 (RFC 7515, RFC 7518 section 3.4).
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from publisher.errors import OriginError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.targets.pelican.tokens import TokenScope

ANY_AUDIENCE = "https://wlcg.cern.ch/jwt/v1/any"
"""The audience that every service accepts (WLCG profile)."""
_EARLIER = 60  # seconds that a server's clock may be behind ours
_COORDINATE = 32  # bytes of a P-256 coordinate


@dataclass(frozen=True)
class TokenClaims:
    """What all tokens of one issuer have in common.

    Attributes:
        issuer: its URL, as servers know it.
        audience: who the tokens are for.
        subject: who acts.
        base: the path that scopes are relative to; the namespace's own when None.
        life: seconds that a token is good for.
    """

    issuer: str
    audience: str = ANY_AUDIENCE
    subject: str = "image-publisher"
    base: str | None = None
    life: int = 600


class MintedTokens:
    """Tokens made with ``key``.

    Args:
        key: on P-256.
        keyid: the key's name in the issuer's key set; its thumbprint (RFC 7638) when None, as Pelican names its keys.
        claims: what all of them say.
        clock: seconds since the epoch.
    """

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, keyid: str | None, claims: TokenClaims, clock: Callable[[], float]
    ) -> None:
        self._key = key
        self._keyid = keyid or thumbprint(key.public_key())
        self._claims = claims
        self._clock = clock

    def bearer(self, rights: Sequence[TokenScope], base: str) -> str | None:
        """See :meth:`publisher.targets.pelican.tokens.Tokens.bearer`.

        Raises:
            OriginError: a path is outside of what the issuer can speak for.
        """
        now, claims = int(self._clock()), self._claims
        within = base if claims.base is None else claims.base
        said = {
            "wlcg.ver": "1.0",
            "iss": claims.issuer,
            "sub": claims.subject,
            "aud": claims.audience,
            "jti": secrets.token_hex(16),
            "iat": now,
            "nbf": now - _EARLIER,
            "exp": now + claims.life,
            "scope": " ".join(f"{right.capability}:{_relative(right.path, within)}" for right in rights),
        }
        text = f"{_part({'alg': 'ES256', 'typ': 'JWT', 'kid': self._keyid})}.{_part(said)}"
        numbers = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64(b''.join(number.to_bytes(_COORDINATE, 'big') for number in numbers))}"


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """A key's name by RFC 7638: of its members in their order, without spaces."""
    numbers = key.public_numbers()
    point = {name: _base64(number.to_bytes(_COORDINATE, "big")) for name, number in (("x", numbers.x), ("y", numbers.y))}
    member = json.dumps({"crv": "P-256", "kty": "EC", **point}, separators=(",", ":"))
    return _base64(hashlib.sha256(member.encode()).digest())


def _relative(path: str, base: str) -> str:
    base = base.rstrip("/")
    if path == base:
        return "/"
    if not path.startswith(f"{base}/"):
        raise OriginError(f"{path} is not below {base}, which the issuer of tokens speaks for", hint="see the setting token_base")
    return path.removeprefix(base)


def _part(value: dict[str, object]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
