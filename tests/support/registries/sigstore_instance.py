"""A Sigstore instance on this machine: certificate authority, certificate log and transparency log, and their trust root.

It signs as cosign 3 with an identity does, without any network: every part is a key in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from tests.support.registries.cosign import SIGN_PREDICATE, bundle_of, pae, statement, text

if TYPE_CHECKING:
    from pathlib import Path

_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_SHA256_ECDSA = b"\x04\x03"  # of TLS 1.2: hash and signature algorithm
_ALGORITHM = ec.ECDSA(hashes.SHA256())
_ORIGIN = "log.example.org"


@dataclass
class _Log:
    """A log's key and its id, the sha256 of the public key."""

    key: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> bytes:
        return _der(self.key.public_key())

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.public).digest()

    def sign(self, content: bytes) -> bytes:
        return self.key.sign(content, _ALGORITHM)

    def to_json(self, since: datetime) -> dict[str, object]:
        key = {"rawBytes": text(self.public), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": {"start": _stamp(since)}}
        return {
            "baseUrl": f"https://{_ORIGIN}",
            "hashAlgorithm": "SHA2_256",
            "publicKey": key,
            "logId": {"keyId": text(self.id)},
        }


class SigstoreInstance:
    """The instance; ``trust_root`` is the path of its ``trusted_root.json``, written into a directory."""

    def __init__(self, directory: Path) -> None:
        self._now = datetime.now(timezone.utc).replace(microsecond=0)
        self._since = self._now - timedelta(days=1)
        self._certificates, self._entries = _Log(_new_key()), _Log(_new_key())
        self._authority_key = _new_key()
        self._authority = self._make_authority()
        self.trust_root = directory / "trusted_root.json"
        self.trust_root.write_text(json.dumps(self._trust_root()))

    def sign(self, digest: str, identity: str, issuer: str, predicate: str = SIGN_PREDICATE) -> bytes:
        """Return the bundle with an identity's signature of an image."""
        key, payload = _new_key(), statement(digest, predicate)
        certificate = self._certify(key, identity, issuer)
        signature = key.sign(pae(payload), _ALGORITHM)
        entry = self._log(payload, signature, certificate)
        raw = certificate.public_bytes(serialization.Encoding.DER)
        return bundle_of(payload, signature, {"certificate": {"rawBytes": text(raw)}, "tlogEntries": [entry]})

    def _trust_root(self) -> dict[str, object]:
        raw = text(self._authority.public_bytes(serialization.Encoding.DER))
        authority = {
            "subject": {"organization": "example.org", "commonName": "authority"},
            "uri": "https://ca.example.org",
            "certChain": {"certificates": [{"rawBytes": raw}]},
            "validFor": {"start": _stamp(self._since)},
        }
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self._entries.to_json(self._since)],
            "certificateAuthorities": [authority],
            "ctlogs": [self._certificates.to_json(self._since)],
        }

    def _make_authority(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "example.org")])
        public = self._authority_key.public_key()
        usage = _usage(key_cert_sign=True, crl_sign=True)
        builder = self._builder(name, public, timedelta(days=30))
        return (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._authority_key, hashes.SHA256())
        )

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey, lifetime: timedelta) -> x509.CertificateBuilder:
        issuer = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "example.org")])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._since)
            .not_valid_after(self._now + lifetime)
        )

    def _certify(self, key: ec.EllipticCurvePrivateKey, identity: str, issuer: str) -> x509.Certificate:
        """Return a certificate of an identity, with the certificate log's timestamp in it (RFC 6962, 3.3)."""
        public, authority = key.public_key(), self._authority_key.public_key()
        name = x509.UniformResourceIdentifier(identity) if "://" in identity else x509.RFC822Name(identity)
        encoded = issuer.encode()
        builder = (
            self._builder(x509.Name([]), public, timedelta(minutes=10))
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.UnrecognizedExtension(_ISSUER_V2, b"\x0c" + bytes([len(encoded)]) + encoded), critical=False)
        )
        unlogged = builder.sign(self._authority_key, hashes.SHA256()).tbs_certificate_bytes
        milliseconds = int(self._now.timestamp() * 1000)
        length = struct.pack("!I", len(unlogged))[1:]
        entry = hashlib.sha256(_der(authority)).digest() + length + unlogged
        signature = self._certificates.sign(struct.pack("!BBQH", 0, 0, milliseconds, 1) + entry + b"\0\0")
        timestamp = b"\0" + self._certificates.id + struct.pack("!Q", milliseconds) + b"\0\0" + _SHA256_ECDSA
        timestamp += struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!HH", len(timestamp) + 2, len(timestamp)) + timestamp
        value = b"\x04" + _length(len(listed)) + listed
        oid = ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS
        return builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False).sign(
            self._authority_key, hashes.SHA256()
        )

    def _log(self, payload: bytes, signature: bytes, certificate: x509.Certificate) -> dict[str, object]:
        """Return the entry of the transparency log: the only one of its tree."""
        verifier = text(certificate.public_bytes(serialization.Encoding.PEM))
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(b"envelope").hexdigest()},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": text(signature), "verifier": verifier}],
        }
        body = _canonical({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        seconds = int(self._now.timestamp())
        promised = {"body": text(body), "integratedTime": seconds, "logID": self._entries.id.hex(), "logIndex": 0}
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"{_ORIGIN}\n1\n{text(root)}\n"
        signed = base64.b64encode(self._entries.id[:4] + self._entries.sign(note.encode())).decode()
        return {
            "logIndex": "0",
            "logId": {"keyId": text(self._entries.id)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(seconds),
            "inclusionPromise": {"signedEntryTimestamp": text(self._entries.sign(_canonical(promised)))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": text(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 {_ORIGIN} {signed}\n"},
            },
            "canonicalizedBody": text(body),
        }


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _stamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _length(count: int) -> bytes:
    """Return a DER length of less than 128 bytes, or of one more byte."""
    return bytes([count]) if count < 0x80 else bytes([0x81, count])


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
