from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from publisher.errors import UsageError
from publisher.registry.credentials import Credentials, docker_credentials

if TYPE_CHECKING:
    from pathlib import Path

HELPER = """#!/bin/sh
read -r registry
case "$registry" in
  helped.example) echo '{"Username": "helper", "Secret": "s3cret"}' ;;
  https://index.docker.io/v1/) echo '{"Username": "hub", "Secret": "s3cret"}' ;;
  empty.example) echo '{"Username": "", "Secret": ""}' ;;
  nonsense.example) echo '{"Username": "s3cret"}' ;;
  hangs.example) exec sleep 1000 ;;
  killed.example) echo s3cret >&2; kill -9 $$ ;;
  token.example) echo '{"Username": "<token>", "Secret": "r3fresh"}' ;;
  broken.example) echo 'leaked s3cret'; exit 3 ;;
  *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


def configured(where: Path, content: dict[str, object] | str) -> Path:
    path = where / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def auth(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(user.encode()).decode()}


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install a credential helper on the PATH and return its name."""
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return "test"


def test_names_and_passwords_come_from_the_file(tmp_path: Path) -> None:
    auths = {"ghcr.io": auth("me:pass:word"), "127.0.0.1:5000": auth("you:p"), "https://index.docker.io/v1/": auth("hub:h")}
    look_up = docker_credentials(configured(tmp_path, {"auths": auths}))
    assert look_up("ghcr.io") == Credentials("me", "pass:word")
    assert look_up("127.0.0.1:5000") == Credentials("you", "p")
    assert look_up("docker.io") == Credentials("hub", "h")
    assert look_up("127.0.0.1:5001") is None


def test_an_identity_token_comes_from_the_file(tmp_path: Path) -> None:
    auths = {"x.example": {**auth("me:"), "identitytoken": "r3fresh"}, "empty.example": {}}
    look_up = docker_credentials(configured(tmp_path, {"auths": auths}))
    assert look_up("x.example") == Credentials(identity_token="r3fresh")
    assert look_up("empty.example") is None


def test_a_credential_helper_is_asked(tmp_path: Path, helper: str) -> None:
    look_up = docker_credentials(configured(tmp_path, {"credsStore": helper, "auths": {"file.example": auth("me:p")}}))
    assert look_up("helped.example") == Credentials("helper", "s3cret", from_helper=True)
    assert look_up("token.example") == Credentials(identity_token="r3fresh", from_helper=True)
    assert look_up("docker.io") == Credentials("hub", "s3cret", from_helper=True)
    assert look_up("file.example") == Credentials("me", "p")
    assert look_up("none.example") is None
    assert look_up("empty.example") is None


@pytest.mark.parametrize("key", ["docker.io", "https://index.docker.io/v1/"])
def test_docker_hubs_helper_is_found_by_both_its_names(tmp_path: Path, helper: str, key: str) -> None:
    look_up = docker_credentials(configured(tmp_path, {"credHelpers": {key: helper}}))
    assert look_up("docker.io") == Credentials("hub", "s3cret", from_helper=True)
    assert look_up("helped.example") is None


def test_a_helper_gets_the_environment_that_it_may_need(tmp_path: Path, helper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / f"docker-credential-{helper}"
    program.write_text('#!/bin/sh\necho "{\\"Username\\": \\"$1\\", \\"Secret\\": \\"$AWS_PROFILE\\"}"\n')
    monkeypatch.setenv("AWS_PROFILE", "mine")
    look_up = docker_credentials(configured(tmp_path, {"credsStore": helper}))
    assert look_up("helped.example") == Credentials("get", "mine", from_helper=True)


def test_a_helper_that_hangs_is_killed_at_its_deadline(tmp_path: Path, helper: str) -> None:
    look_up = docker_credentials(configured(tmp_path, {"credsStore": helper}), timeout=0.2)
    with pytest.raises(UsageError, match=r"helper docker-credential-test did not end within 0\.2 s and was killed"):
        look_up("hangs.example")


def test_a_helper_that_fails_or_is_missing_is_an_error_that_tells_nothing_secret(tmp_path: Path, helper: str) -> None:
    names = {"broken.example": helper, "missing.example": "is-not-there"}
    for name in ("broken", "nonsense", "killed"):
        names[f"{name}.example"] = helper
        look_up = docker_credentials(configured(tmp_path, {"credHelpers": names}))
        with pytest.raises(UsageError, match=r"credential helper docker-credential-test failed") as failure:
            look_up(f"{name}.example")
        assert "s3cret" not in str(failure.value)
    look_up = docker_credentials(configured(tmp_path, {"credHelpers": names}))
    with pytest.raises(UsageError, match=r"docker-credential-is-not-there is not installed"):
        look_up("missing.example")
    assert look_up("another.example") is None


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_damaged_file_is_an_error_and_not_the_lack_of_credentials(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match=r"config\.json is not a Docker configuration"):
        docker_credentials(configured(tmp_path, content))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        docker_credentials(tmp_path)


def test_damaged_entries_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json: Invalid configuration for registry x"):
        docker_credentials(configured(tmp_path, {"auths": {"x": 7}}))


def test_the_file_is_looked_for_where_docker_does_and_need_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert docker_credentials()("ghcr.io") is None
    configured(tmp_path, {"auths": {"ghcr.io": auth("me:p")}})
    assert docker_credentials()("ghcr.io") == Credentials("me", "p")
    configured(tmp_path, "{")
    with pytest.raises(UsageError):
        docker_credentials()


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.json does not exist"):
        docker_credentials(tmp_path / "absent.json")


def test_credentials_do_not_print_what_is_secret() -> None:
    assert "s3cret" not in repr(Credentials("me", "s3cret", "s3cret-token"))
