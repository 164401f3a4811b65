from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import UsageError
from publisher.signing.credentials import find_secret

if TYPE_CHECKING:
    from pathlib import Path


def test_a_credential_goes_before_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "key.pem.passphrase").write_bytes(b"from systemd\n")
    assert find_secret("key.pem.passphrase", lambda _: "from a person", "the passphrase") == b"from systemd"
    assert find_secret("other.pin", lambda _: "from a person", "the PIN") == b"from a person"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert find_secret("key.pem.passphrase", lambda _: "from a person", "the passphrase") == b"from a person"


def test_without_a_credential_and_a_person_the_error_names_the_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(UsageError, match=r"the PIN is needed, and nobody can be asked .*credential signing\.pin"):
        find_secret("signing.pin", lambda _: None, "the PIN")


def test_a_credential_that_cannot_be_read_is_no_reason_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "signing.pin").mkdir()
    with pytest.raises(UsageError, match=r"the credential signing\.pin cannot be read"):
        find_secret("signing.pin", lambda _: "asked", "the PIN")
