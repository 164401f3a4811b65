"""``publisher init``: afterwards, commands in its directory need no flags."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from publisher.cli.main import publisher
from publisher.errors import UsageError
from publisher.settings.sources import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PUBLISHER_CONFIG", raising=False)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(publisher, [*arguments], catch_exceptions=False)


def test_after_init_the_commands_need_no_flags(here: Path) -> None:
    done = json.loads(run("init", "--json").stdout)
    assert done["made"] == ["publisher.yaml", "images.yaml", "keys/signing.pem", "keys/signing.pem.pub"]
    assert (here / "keys/signing.pem").stat().st_mode & 0o077 == 0
    status = run("status")
    assert status.exit_code == 1
    assert "1 waiting" in status.stdout
    assert "nothing is published yet; run: publisher sync" in status.stdout
    assert run("list").stdout.startswith("library/debian:12  waiting")


def test_init_changes_no_file_that_exists(here: Path) -> None:
    (here / "images.yaml").write_text("mine")
    run("init")
    key = (here / "keys/signing.pem").read_bytes()
    assert run("init").stdout == "everything is there already\n"
    assert (here / "images.yaml").read_text() == "mine"
    assert (here / "keys/signing.pem").read_bytes() == key


def test_the_targets_of_init_are_those_of_the_settings(here: Path) -> None:
    run("init", "place", "--repository=cvmfs:images.example.org", "--origin=osdf:///ospool/images", "--image=htc/rocky:9")
    settings = load_settings({"config": "place/publisher.yaml"}, {}, cwd=here)
    assert str(settings.repository) == "cvmfs:images.example.org"
    assert (settings.images, settings.state) == (here / "place/images.yaml", here / "place/state")


def test_a_directory_that_cannot_be_written_is_said(here: Path) -> None:
    (here / "file").touch()
    with pytest.raises(UsageError, match=r"file/x/publisher.yaml cannot be written: .*Not a directory"):
        run("init", "file/x")


def test_a_configuration_that_another_account_may_write_is_read_only_if_it_is_named(here: Path) -> None:
    """It can name programs (``key: command:…``), so a directory of somebody else must not decide what runs here."""
    path = here / "publisher.yaml"
    path.write_text("batch_time: 5 min\n")
    assert load_settings({}, {"HOME": "/root"}, cwd=here).batch_time == 300
    path.chmod(0o666)
    with pytest.raises(UsageError, match="is not read without being named: another account owns it or may write to it"):
        load_settings({}, {"HOME": "/root"}, cwd=here)
    assert load_settings({"config": str(path)}, {"HOME": "/root"}, cwd=here).batch_time == 300
