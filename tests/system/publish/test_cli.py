"""The output and exit status of the command, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.publisher.host import PROGRAMS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

LIST = "version: 1\ngroups: [{title: One, images: ['debian:12']}]\n"


def run(where: Path, *arguments: str, program: list[str] | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [*(program or [str(PROGRAMS / "publisher")]), *arguments]
    settings = {"PATH": "/usr/bin:/bin", "HOME": str(where), **env}
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=where, env=settings)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sink"], "No such command"),
        (["sync", "--no-such-flag"], "No such option"),
        (["sync"], "no place to publish is given"),
        (["plan", "--repository=a", "--origin=b", "--images=nowhere.yaml"], "nowhere.yaml"),
        (["keys", "new"], "--key"),
        (["sync", "--config=nowhere.yaml"], "nowhere.yaml"),
        (["sync", "--repository=cvmfs:images;reboot"], "not a valid name of a CVMFS repository"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line_that_helps(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["plan", "sync"])
def test_a_cvmfs_repository_that_this_host_does_not_have_is_reported(tmp_path: Path, command: str) -> None:
    (tmp_path / "images.yaml").write_text("version: 1\ngroups: [{title: One, images: ['localhost:1/one/image:1']}]\n")
    flags = ["--repository=cvmfs:nowhere.example.org", "--origin=osdf", "--state=state", "--key=key.pem"]
    assert run(tmp_path, "keys", "new", *flags).returncode == 0
    done = run(tmp_path, command, *flags)
    assert (done.returncode, done.stdout) == (4, "")
    assert "no such repository on this host (`cvmfs_server mkfs nowhere.example.org`" in done.stderr


def test_settings_come_from_flags_environment_and_file(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "publisher.yaml").write_text("repository: ../cvmfs\norigin: ../osdf\nkey: ../missing.pem\n")
    (tmp_path / "images.yaml").write_text(LIST)
    from_file = run(tmp_path, "sync", "--config=conf/publisher.yaml")
    assert f"the key {tmp_path}/missing.pem does not exist" in from_file.stderr
    from_environment = run(tmp_path, "sync", PUBLISHER_CONFIG="conf/publisher.yaml", PUBLISHER_KEY="other.pem")
    assert f"the key {tmp_path}/other.pem does not exist" in from_environment.stderr
    from_flag = run(tmp_path, "sync", "--key=third.pem", PUBLISHER_CONFIG="conf/publisher.yaml", PUBLISHER_KEY="other.pem")
    assert f"the key {tmp_path}/third.pem does not exist" in from_flag.stderr


def test_a_new_key_is_written_and_reported(tmp_path: Path) -> None:
    done = run(tmp_path, "keys", "new", "--key=keys/ospool.pem")
    assert done.returncode == 0
    assert (tmp_path / "keys/ospool.pem.pub").read_text().startswith("-----BEGIN PUBLIC KEY-----")
    assert f"{tmp_path}/keys/ospool.pem.pub" in done.stdout
    again = run(tmp_path, "keys", "new", "--key=keys/ospool.pem")
    assert again.returncode == 2
    assert "never overwritten" in again.stderr


def test_a_bug_ends_with_3_and_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "images.yaml").write_text(LIST)
    code = "from publisher.cli import main; from publisher.cli.commands import publish; publish.load_snapshot = lambda _: 1 // 0"
    code += "; main.main()"
    done = run(tmp_path, "plan", "--repository=cvmfs", "--origin=osdf", program=[sys.executable, "-c", code])
    assert done.returncode == 3
    assert "ZeroDivisionError" in done.stderr
    assert "this is a bug" in done.stderr


def test_it_answers_to_help_and_version(tmp_path: Path) -> None:
    shown = run(tmp_path, "sync", "--help")
    assert shown.returncode == 0
    for flag in ("--images", "--repository", "--origin", "--state", "--key", "--config", "--rebind", "publisher help settings"):
        assert flag in shown.stdout
    assert run(tmp_path, "--version").stdout.startswith("publisher, version ")
