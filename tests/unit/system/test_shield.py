"""A program with root's rights sees no secret, and cannot uncover one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from publisher.errors import UsageError
from publisher.system import command, shield
from publisher.system.shield import Shield

if TYPE_CHECKING:
    from pathlib import Path

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root's programs have more rights than themselves")


@pytest.fixture
def secrets(tmp_path: Path) -> list[Path]:
    (tmp_path / "key").write_text("secret")
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/passphrase").write_text("secret")
    return [tmp_path / "key", tmp_path / "credentials", tmp_path / "missing"]


def said(shielded: Shield, script: str) -> str:
    return command.run(shielded.wrap(["sh", "-c", script]), deadline=60).stdout.decode()


@as_root
def test_a_program_sees_no_secret_and_cannot_uncover_it(secrets: list[Path]) -> None:
    key, credentials, _ = secrets
    umount = f"umount {key} {credentials}"
    read = f"cat {key} {credentials}/passphrase /proc/{os.getpid()}/root{key} /proc/{os.getpid()}/environ"
    assert said(Shield(secrets), f"({umount}; {read}) 2> /dev/null; id -u") == "0\n"
    assert key.read_text() == "secret"


@as_root
def test_a_program_may_still_give_files_to_others(secrets: list[Path], tmp_path: Path) -> None:
    given = tmp_path / "given"
    said(Shield(secrets), f"touch {given}; chmod 4000 {given}; chown 1234:5678 {given}; chmod 4511 {given}")
    found = given.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1234, 5678, 0o4511)


def test_without_secrets_and_without_roots_rights_a_program_runs_as_it_is(
    secrets: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Shield().wrap(["true"]) == ["true"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Shield(secrets).wrap(["true"]) == ["true"]


@as_root
def test_on_a_host_without_namespaces_no_program_runs_that_could_read_the_key(
    secrets: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shield, "_NAMESPACE", ("false",))
    shield._missing_namespaces.cache_clear()
    try:
        for refused in (lambda: Shield(secrets).wrap(["true"]), Shield(secrets).check):
            with pytest.raises(UsageError, match=r"could read .*/credentials, because this host allows no mount namespaces"):
                refused()
        Shield().check()
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        Shield(secrets).check()
    finally:
        shield._missing_namespaces.cache_clear()
