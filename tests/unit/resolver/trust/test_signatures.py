"""What must hold of signatures; tests are named after what an attacker or an accident does."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract import manifest
from publisher.contract.errors import ExpectedError, ManifestError
from publisher.resolver.errors import ResolverUsageError
from publisher.resolver.trust import signatures
from tests.support.ep.execution_point import Key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KEY, OTHER = Key(), Key()
PAYLOAD = b'{"serial":7}'
SIGNATURE = KEY.sign(PAYLOAD)
CONTENT = manifest.seal(PAYLOAD, {KEY.keyid: SIGNATURE})
TRUSTED = {KEY.keyid: KEY.pem}


def verify(content: bytes, keys: Mapping[str, bytes], timeout: float = signatures.TIMEOUT) -> bytes:
    return signatures.verify(manifest.Envelope.parse(content), keys, timeout=timeout)


@pytest.fixture(scope="module", autouse=True)
def short_path() -> Iterator[None]:
    """Leave the system's directories on the PATH: every other one costs each check a process, hundreds of times in this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/usr/bin:/bin")
        yield


def test_a_signature_of_a_trusted_key_gives_the_payload() -> None:
    assert verify(CONTENT, TRUSTED) == PAYLOAD


def test_a_payload_larger_than_a_pipe_is_verified() -> None:
    payload = b"x" * 1_000_000
    assert verify(manifest.seal(payload, {KEY.keyid: KEY.sign(payload)}), TRUSTED) == payload


@given(at=st.integers(0, len(CONTENT) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_of_the_envelope_never_gives_another_payload(at: int, byte: int) -> None:
    changed = CONTENT[:at] + bytes([byte]) + CONTENT[at + 1 :]
    try:
        assert verify(changed, TRUSTED) == PAYLOAD
    except ManifestError:
        assert changed != CONTENT


@given(at=st.integers(0, len(PAYLOAD) - 1), flip=st.integers(1, 127))
def test_a_flipped_byte_of_the_payload_is_refused(at: int, flip: int) -> None:
    payload = bytearray(PAYLOAD)
    payload[at] ^= flip
    with pytest.raises(ManifestError, match="signature of the manifest's index is not valid"):
        verify(manifest.seal(bytes(payload), {KEY.keyid: SIGNATURE}), TRUSTED)


@given(at=st.integers(0, len(SIGNATURE) - 1), flip=st.integers(1, 255))
def test_a_flipped_byte_of_the_signature_is_refused(at: int, flip: int) -> None:
    signature = bytearray(SIGNATURE)
    signature[at] ^= flip
    with pytest.raises(ManifestError, match="signature of the manifest's index is not valid"):
        verify(manifest.seal(PAYLOAD, {KEY.keyid: bytes(signature)}), TRUSTED)


def test_an_unsigned_index_is_refused() -> None:
    with pytest.raises(ManifestError, match="signed by nobody"):
        verify(manifest.seal(PAYLOAD, {}), TRUSTED)


def test_an_unknown_key_is_refused_by_its_id() -> None:
    with pytest.raises(ManifestError, match=f"signed by {OTHER.keyid[:16]}"):
        verify(manifest.seal(PAYLOAD, {OTHER.keyid: OTHER.sign(PAYLOAD)}), TRUSTED)


def test_a_trusted_keys_id_on_another_keys_signature_is_refused() -> None:
    with pytest.raises(ManifestError, match="signature of the manifest's index is not valid"):
        verify(manifest.seal(PAYLOAD, {KEY.keyid: OTHER.sign(PAYLOAD)}), TRUSTED)


def test_one_trusted_signature_among_several_is_enough() -> None:
    """As while keys rotate: hosts trust the old one, the new one, or both."""
    content = manifest.seal(PAYLOAD, {KEY.keyid: SIGNATURE, OTHER.keyid: OTHER.sign(PAYLOAD)})
    for keys in ({KEY.keyid: KEY.pem}, {OTHER.keyid: OTHER.pem}, {KEY.keyid: KEY.pem, OTHER.keyid: OTHER.pem}):
        assert verify(content, keys) == PAYLOAD
    for wrong in (KEY, OTHER):
        half_wrong = manifest.seal(PAYLOAD, {key.keyid: b"wrong" if key is wrong else key.sign(PAYLOAD) for key in (KEY, OTHER)})
        assert verify(half_wrong, {KEY.keyid: KEY.pem, OTHER.keyid: OTHER.pem}) == PAYLOAD


def test_a_threshold_counts_different_keys() -> None:
    both = {KEY.keyid: KEY.pem, OTHER.keyid: OTHER.pem}
    enough = manifest.Envelope(PAYLOAD, [(key.keyid, key.sign(PAYLOAD)) for key in (KEY, OTHER)])
    assert signatures.verify(enough, both, 2) == PAYLOAD
    twice = manifest.Envelope(PAYLOAD, [(KEY.keyid, SIGNATURE), (KEY.keyid, KEY.sign(PAYLOAD))])
    half_wrong = manifest.Envelope(PAYLOAD, [(KEY.keyid, SIGNATURE), (OTHER.keyid, KEY.sign(PAYLOAD))])
    for envelope in (twice, half_wrong):
        with pytest.raises(ManifestError, match="1 valid signatures of different keys; it needs 2"):
            signatures.verify(envelope, both, 2)


def test_a_flood_of_signatures_is_refused_before_any_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")  # a check would fail otherwise
    keys = {f"{number:064x}": KEY.pem for number in range(17)}
    with pytest.raises(ManifestError, match="17 signatures"):
        verify(manifest.seal(PAYLOAD, dict.fromkeys(keys, SIGNATURE)), keys)


def test_a_missing_openssl_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ExpectedError, match="cannot run openssl: it is not on the PATH") as failure:
        verify(CONTENT, TRUSTED)
    assert failure.value.exit_code == 4


def test_an_openssl_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "openssl"
    program.write_text("#!/bin/sh\nexec /bin/sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExpectedError, match=r"openssl did not end within 0\.05 s"):
        verify(CONTENT, TRUSTED, timeout=0.05)


def test_the_callers_environment_does_not_reach_openssl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENSSL_CONF and LD_PRELOAD make it load any library."""
    program = tmp_path / "openssl"
    program.write_text(f"#!/bin/sh\nexport -p > {tmp_path}/environment\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OPENSSL_CONF", str(tmp_path / "evil.cnf"))
    assert verify(CONTENT, TRUSTED) == PAYLOAD, "it ended with 0"
    names = {line.split("=")[0].split()[1] for line in (tmp_path / "environment").read_text().splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "LC_ALL"}


def test_keys_come_from_files_and_directories_under_their_ids(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/new.pem").write_bytes(b"# our new one\n" + OTHER.pem)
    (tmp_path / "keys/README").write_text("no key")
    (tmp_path / "old.pub").write_bytes(KEY.pem.replace(b"\n", b"\r\n"))
    keys = signatures.load_keys([str(tmp_path / "keys"), str(tmp_path / "old.pub")])
    assert set(keys) == {KEY.keyid, OTHER.keyid}
    assert verify(CONTENT, keys) == PAYLOAD


def test_a_removed_key_file_is_a_revoked_key(tmp_path: Path) -> None:
    for name, key in (("old.pem", KEY), ("new.pem", OTHER)):
        (tmp_path / name).write_bytes(key.pem)
    assert verify(CONTENT, signatures.load_keys([str(tmp_path)])) == PAYLOAD
    (tmp_path / "old.pem").unlink()
    with pytest.raises(ManifestError, match="no such key is trusted"):
        verify(CONTENT, signatures.load_keys([str(tmp_path)]))


def test_a_file_that_is_not_a_public_key_is_refused_by_its_name(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    cut = KEY.pem.partition(b"-----END")[0]
    garbled = b"-----BEGIN PUBLIC KEY-----\nA\n-----END PUBLIC KEY-----\n"
    for content in (b"", private, cut, garbled):
        (tmp_path / "key.pem").write_bytes(content)
        with pytest.raises(ResolverUsageError, match=r"key\.pem is not a public key"):
            signatures.load_keys([str(tmp_path)])


WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505 - refusing it is the point


@pytest.mark.parametrize("private", [WEAK, ec.generate_private_key(ec.SECP384R1())])
def test_a_key_of_another_kind_is_refused(tmp_path: Path, private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "key.pem").write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, form))
    with pytest.raises(ResolverUsageError, match="not a public key on the curve P-256"):
        signatures.load_keys([str(tmp_path)])


def test_without_any_key_nothing_is_trusted(tmp_path: Path) -> None:
    for paths in ([], [str(tmp_path)]):
        with pytest.raises(ResolverUsageError, match="no trusted key"):
            signatures.load_keys(paths)


@pytest.mark.parametrize("name", ["absent.pem", "secret.pem/"])
def test_an_unreadable_key_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.pem").mkdir()
    (tmp_path / "secret.pem/loop.pem").symlink_to("loop.pem")
    with pytest.raises(ResolverUsageError, match="cannot read the trusted key"):
        signatures.load_keys([str(tmp_path / name)])


def test_the_key_id_is_that_of_the_subject_public_key_info() -> None:
    der = serialization.load_pem_public_key(KEY.pem).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert hashlib.sha256(der).hexdigest() == KEY.keyid
