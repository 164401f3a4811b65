from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from publisher.errors import PublishedManifestError, UsageError
from publisher.state.signing import Signer, new_key, public_key_of, public_path_of, read_public_key, verify

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_key_signs_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    made = new_key(tmp_path / "keys" / "ospool.pem")
    assert stat.S_IMODE((tmp_path / "keys" / "ospool.pem").stat().st_mode) == 0o600
    signer = Signer(tmp_path / "keys" / "ospool.pem")
    public = read_public_key(public_path_of(tmp_path / "keys" / "ospool.pem"))
    assert made.keyid == signer.public.keyid == public.keyid
    ((keyid, signature),) = signer.sign(b"payload").items()
    assert keyid == public.keyid
    assert public.verifies(b"payload", signature)
    assert not public.verifies(b"Payload", signature)
    assert not public.verifies(b"payload", signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not public.verifies(b"payload", b"no signature")


def test_openssl_checks_what_the_publisher_signed(tmp_path: Path) -> None:
    new_key(tmp_path / "key")
    ((_, signature),) = Signer(tmp_path / "key").sign(b"payload").items()
    (tmp_path / "signature").write_bytes(signature)
    argv = ["openssl", "dgst", "-sha256", "-verify", f"{tmp_path}/key.pub", "-signature", f"{tmp_path}/signature"]
    assert subprocess.run(argv, input=b"payload", capture_output=True, check=False).returncode == 0
    assert subprocess.run(argv, input=b"other", capture_output=True, check=False).returncode != 0


def test_a_keys_id_is_the_sha256_of_its_der(tmp_path: Path) -> None:
    made = new_key(tmp_path / "key")
    argv = ["openssl", "pkey", "-pubin", "-in", f"{tmp_path}/key.pub", "-outform", "DER"]
    der = subprocess.run(argv, capture_output=True, check=True).stdout
    assert made.keyid == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize("taken", ["key", "key.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        new_key(tmp_path / "key")
    assert (tmp_path / taken).read_text() == "precious"
    assert os.listdir(tmp_path) == [taken]  # noqa: PTH208 - names alone


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    new_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(UsageError, match="read by others"):
        Signer(tmp_path / "key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    new_key(tmp_path / "key")
    os.chown(tmp_path / "key", 12345, -1)
    with pytest.raises(UsageError, match=r"belongs to another user \(uid 12345\)"):
        Signer(tmp_path / "key")


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Signer(tmp_path / "key")
    assert "publisher keys new" in str(caught.value)


def _pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    encryption = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    "content", [b"nonsense", _pem(ec.generate_private_key(ec.SECP384R1())), _pem(ed25519.Ed25519PrivateKey.generate())]
)
def test_other_kinds_of_keys_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(UsageError, match=r"is not a readable private key|is not a private key"):
        Signer(tmp_path / "key")
    with pytest.raises(UsageError, match=r"is not a readable public key|is not a public key"):
        read_public_key(tmp_path / "key")


def test_one_trusted_signature_is_enough_and_none_is_not(tmp_path: Path) -> None:
    old, new = new_key(tmp_path / "old"), new_key(tmp_path / "new")
    signatures = [*Signer(tmp_path / "old").sign(b"payload").items(), ("unknown", b"signature")]
    verify(b"payload", signatures, [old, new])
    for keys in ([new], []):
        with pytest.raises(PublishedManifestError, match="not signed"):
            verify(b"payload", signatures, keys)
    with pytest.raises(PublishedManifestError, match="not signed"):
        verify(b"other payload", signatures, [old])


def test_the_public_key_of_a_key_comes_from_either_half(tmp_path: Path) -> None:
    key = tmp_path / "key"
    own = new_key(key)

    def found() -> str | None:
        public = public_key_of(key)
        return None if public is None else public.keyid

    assert found() == own.keyid
    key.unlink()
    assert found() == own.keyid, "as an account has it that may read the public half alone"
    public_path_of(key).unlink()
    assert found() is None
    assert public_key_of(None) is None


def test_an_encrypted_key_signs_with_its_passphrase_only(tmp_path: Path) -> None:
    made = new_key(tmp_path / "key", b"secret")
    assert b"ENCRYPTED" in (tmp_path / "key").read_bytes()
    assert Signer(tmp_path / "key", lambda: b"secret").public.keyid == made.keyid
    for passphrase in (lambda: b"wrong", None):
        with pytest.raises(UsageError, match="not a readable private key"):
            Signer(tmp_path / "key", passphrase)
    public = public_key_of(tmp_path / "key")
    assert public is not None, "verifying needs no passphrase"
    assert public.keyid == made.keyid


def test_a_passphrase_is_not_asked_for_without_need(tmp_path: Path) -> None:
    def ask() -> bytes:
        raise AssertionError

    new_key(tmp_path / "key")
    assert Signer(tmp_path / "key", ask).sign(b"payload")
