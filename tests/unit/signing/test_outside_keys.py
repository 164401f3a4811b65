"""Keys that the publisher's process never has, in SoftHSM and behind a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.contract.manifest import Envelope
from publisher.errors import SigningError, UsageError
from publisher.resolver.trust import signatures
from publisher.signing.key_source import ProgramKey, TokenKey
from publisher.signing.manifest_signer import JointSigner, open_key
from publisher.state.signing import Signer, new_key
from tests.support.publisher.outside_keys import PIN, make_program, make_token

if TYPE_CHECKING:
    from pathlib import Path


def never(_: str) -> str | None:
    raise AssertionError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return tmp_path


def test_a_token_signs_what_execution_points_verify(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_token(home)
    (home / "credentials").mkdir()
    (home / "credentials/signing.pin").write_text(f"{PIN}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(home / "credentials"))
    key = open_key(source, never)
    envelope = Envelope(b'{"serial":1}', key.sign(b'{"serial":1}').items())
    assert signatures.verify(envelope, {key.public.keyid: key.public.pem}) == envelope.payload


def test_a_tokens_pin_is_asked_for_and_no_argument_shows_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_token(home)
    key = open_key(source, lambda purpose: PIN if "the token publisher" in purpose else None)
    real = home / "bin"
    real.mkdir()
    (real / "pkcs11-tool").write_text(f'#!/bin/sh\necho "$*" >> {home}/arguments\nexec /usr/bin/pkcs11-tool "$@"\n')
    (real / "pkcs11-tool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{real}:/usr/bin:/bin")
    assert key.sign(b"payload")
    assert PIN not in (home / "arguments").read_text()


@pytest.mark.parametrize(
    ("token", "label", "pin"), [("other", "signing", PIN), ("publisher", "other", PIN), ("publisher", "signing", "1")]
)
def test_a_token_that_cannot_be_used_is_reported_at_once(home: Path, token: str, label: str, pin: str) -> None:
    made = make_token(home)
    with pytest.raises(UsageError, match=r"pkcs11:token=.* (cannot be used|is not a readable public key)"):
        open_key(TokenKey(token, label, made.module), lambda _: pin)


def test_a_program_signs_what_execution_points_verify(home: Path) -> None:
    key = open_key(make_program(home), never)
    payload = b"x" * 100_000
    envelope = Envelope(payload, key.sign(payload).items())
    assert signatures.verify(envelope, {key.public.keyid: key.public.pem}) == payload


@pytest.mark.parametrize(
    ("sign", "reason"),
    [
        ("echo wrong", "a signature that its public key does not verify"),
        ("echo no quota >&2; exit 3", "did not sign: .*no quota"),
    ],
)
def test_a_program_that_fails_publishes_nothing(home: Path, sign: str, reason: str) -> None:
    key = open_key(make_program(home, sign), never)
    with pytest.raises(SigningError, match=reason):
        key.sign(b"payload")


def test_a_program_that_is_missing_or_has_no_key_is_reported_at_once(home: Path) -> None:
    with pytest.raises(UsageError, match=r"command:/absent/signer cannot be used"):
        open_key(ProgramKey(home.__class__("/absent/signer")), never)
    program = make_program(home)
    (home / "kms-key.pub").write_text("no key")
    with pytest.raises(UsageError, match="is not a readable public key"):
        open_key(program, never)


def test_several_keys_sign_together(home: Path) -> None:
    new_key(home / "key")
    keys = [Signer(home / "key"), open_key(make_program(home), never)]
    signer = JointSigner(keys, None)
    signed = signer.sign(b"payload")
    assert signed.keys() == {key.keyid for key in signer.publics}
    assert all(key.verifies(b"payload", signed[key.keyid]) for key in signer.publics)


def test_an_encrypted_file_opens_with_its_credential(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = new_key(home / "signing.pem", b"secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(home))
    (home / "signing.pem.passphrase").write_text("secret\n")
    assert open_key(home / "signing.pem", never).public.keyid == made.keyid
