"""An issuer of tokens for tests; it verifies signatures with ``cryptography``, because the publisher signs with PyJWT."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

if TYPE_CHECKING:
    from pathlib import Path

AUDIENCE = "https://wlcg.cern.ch/jwt/v1/any"


class Issuer:
    """A key pair and a URL at which nothing has to respond: servers get the public keys beforehand."""

    def __init__(self, url: str = "https://issuer.invalid", keyid: str = "test-key") -> None:
        self.url = url
        self.keyid = keyid
        self._key = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public key as a JSON Web Key Set."""
        numbers = self._key.public_key().public_numbers()
        point = {"x": _number(numbers.x), "y": _number(numbers.y)}
        return {"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.keyid, **point}]}

    def save(self, path: Path) -> Path:
        """Write the private key to a PEM file that only its owner can read."""
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.touch(mode=0o600)
        path.write_bytes(self._key.private_bytes(*form))
        return path

    def token(self, scope: str, life: float = 600, **claims: object) -> str:
        """Return a token for ``scope`` that expires in ``life`` seconds."""
        now = int(time.time())
        times = {"iat": now - 5, "nbf": now - 5, "exp": int(now + life)}
        names = {"iss": self.url, "sub": "publisher", "aud": AUDIENCE, "jti": str(uuid.uuid4()), "wlcg.ver": "1.0"}
        return jwt.encode({**names, **times, "scope": scope, **claims}, self._key, "ES256", {"kid": self.keyid})

    def read(self, token: str) -> tuple[dict[str, object], dict[str, object]]:
        """Return the header and the claims of a token, after verifying its ES256 signature, audience and times."""
        signed, _, signature = token.rpartition(".")
        numbers = _decoded(signature)
        assert len(numbers) == 64, "RFC 7518, section 3.4: R and S, 32 bytes each"
        der = encode_dss_signature(int.from_bytes(numbers[:32], "big"), int.from_bytes(numbers[32:], "big"))
        self._key.public_key().verify(der, signed.encode(), ec.ECDSA(hashes.SHA256()))
        header, claims = (json.loads(_decoded(part)) for part in signed.split("."))
        assert claims["aud"] == AUDIENCE
        assert max(claims["iat"], claims["nbf"]) <= time.time() < claims["exp"]
        return header, claims


def _decoded(text: str) -> bytes:
    assert "=" not in text
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()
