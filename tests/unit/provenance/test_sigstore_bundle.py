"""Bundles of a Sigstore instance on this machine, and what is wrong with forged ones. Nothing here uses a network."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from publisher.errors import SignatureError, UsageError
from publisher.provenance.sigstore_bundle import BundleVerifier
from tests.support.registries.cosign import IN_TOTO, PlainKey, statement, text
from tests.support.registries.sigstore_instance import SigstoreInstance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("sigstore")
DIGEST = "sha256:" + "a" * 64
WHO, ISSUER = "https://github.com/a/b/.github/workflows/release.yml@refs/tags/v1", "https://login.example.org"


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> SigstoreInstance:
    return SigstoreInstance(tmp_path_factory.mktemp("instance"))


def test_a_bundle_by_the_identity_verifies(instance: SigstoreInstance) -> None:
    verifier = BundleVerifier(instance.trust_root)
    assert verifier.payload(instance.sign(DIGEST, WHO, ISSUER), WHO, ISSUER) == (IN_TOTO, statement(DIGEST))
    assert verifier.payload(instance.sign(DIGEST, "me@example.org", ISSUER), "me@example.org", ISSUER)[0] == IN_TOTO


def test_another_signer_does_not_count(instance: SigstoreInstance, tmp_path: Path) -> None:
    verifier = BundleVerifier(instance.trust_root)
    with pytest.raises(SignatureError, match="Certificate's SANs do not match"):
        verifier.payload(instance.sign(DIGEST, f"{WHO}x", ISSUER), WHO, ISSUER)
    with pytest.raises(SignatureError, match=f"another issuer than {ISSUER} vouches"):
        verifier.payload(instance.sign(DIGEST, WHO, "https://login.example.net"), WHO, ISSUER)
    with pytest.raises(SignatureError, match="the bundle does not verify"):
        verifier.payload(SigstoreInstance(tmp_path).sign(DIGEST, WHO, ISSUER), WHO, ISSUER)
    with pytest.raises(SignatureError, match="the bundle does not verify"):
        verifier.payload(PlainKey().bundle(DIGEST), WHO, ISSUER)


def _other_payload(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["payload"] = text(statement("sha256:" + "b" * 64))


def _other_signature(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = text(PlainKey().sign(b""))


def _no_log_entry(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"]["tlogEntries"] = []


def _no_time(bundle: dict[str, Any]) -> None:
    del bundle["verificationMaterial"]["tlogEntries"][0]["inclusionPromise"]


def _later(bundle: dict[str, Any]) -> None:
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    entry["integratedTime"] = str(int(entry["integratedTime"]) + 3600)


@pytest.mark.parametrize("change", [_other_payload, _other_signature, _no_log_entry, _no_time, _later])
def test_a_changed_bundle_is_refused(instance: SigstoreInstance, change: Callable[[dict[str, Any]], None]) -> None:
    bundle = json.loads(instance.sign(DIGEST, WHO, ISSUER))
    change(bundle)
    with pytest.raises(SignatureError, match="the bundle does not verify"):
        BundleVerifier(instance.trust_root).payload(json.dumps(bundle).encode(), WHO, ISSUER)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 10000])
def test_a_file_that_is_no_bundle_is_refused(instance: SigstoreInstance, content: bytes) -> None:
    with pytest.raises(SignatureError, match="the bundle does not verify"):
        BundleVerifier(instance.trust_root).payload(content, WHO, ISSUER)


def test_a_trust_root_that_cannot_be_loaded_says_which_setting(tmp_path: Path) -> None:
    broken = tmp_path / "trusted_root.json"
    broken.write_text("{}")
    for path in (broken, tmp_path / "absent"):
        with pytest.raises(UsageError, match=f"the Sigstore trust root of {path} cannot be loaded") as raised:
            BundleVerifier(path).payload(b"{}", WHO, ISSUER)
        assert raised.value.hint == "check the setting sigstore_root"


def test_the_command_line_starts_without_sigstore_and_its_packages() -> None:
    program = "import sys, publisher.cli.main; print([name for name in ('sigstore', 'tuf', 'requests') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "sigstore" not in done.stdout
    assert "tuf" not in done.stdout


def test_a_host_without_sigstore_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sigstore.models", None)
    with pytest.raises(UsageError, match="sigstore is not installed"):
        BundleVerifier(None).payload(b"{}", WHO, ISSUER)
