"""An issuer of tokens for tests, by PyJWT: what it makes is independent of what the publisher makes."""

from __future__ import annotations

import base64
import time
import uuid
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from pathlib import Path

AUDIENCE = "https://wlcg.cern.ch/jwt/v1/any"


class Issuer:
    """A key pair and a URL that nothing needs to answer at: servers get its public keys beforehand."""

    def __init__(self, url: str = "https://issuer.invalid", keyid: str = "test-key") -> None:
        self.url = url
        self.keyid = keyid
        self._key = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public key as a JSON Web Key Set."""
        numbers = self._key.public_key().public_numbers()
        point = {"x": _number(numbers.x), "y": _number(numbers.y)}
        return {"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.keyid, **point}]}

    def save(self, path: Path) -> Path:
        """The private key as a PEM file of its owner."""
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.touch(mode=0o600)
        path.write_bytes(self._key.private_bytes(*form))
        return path

    def token(self, scope: str, life: float = 600, **claims: object) -> str:
        """A token for ``scope``, which expires in ``life`` seconds."""
        now = int(time.time())
        times = {"iat": now - 5, "nbf": now - 5, "exp": int(now + life)}
        names = {"iss": self.url, "sub": "publisher", "aud": AUDIENCE, "jti": str(uuid.uuid4()), "wlcg.ver": "1.0"}
        return jwt.encode({**names, **times, "scope": scope, **claims}, self._key, "ES256", {"kid": self.keyid})

    def read(self, token: str) -> dict[str, object]:
        """A token's claims, its signature checked."""
        claims: dict[str, object] = jwt.decode(token, self._key.public_key(), ["ES256"], audience=AUDIENCE)
        return claims


def _number(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()
