"""Shell completion with the names of images, and the man pages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from publisher.cli.main import publisher

ROOT = Path(__file__).resolve().parents[4]


def completed(*words: str, incomplete: str) -> list[str]:
    shell = ShellComplete(publisher, {}, "publisher", "_PUBLISHER_COMPLETE")
    return [item.value for item in shell.get_completions(list(words), incomplete)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(publisher, ["init", "--image=htc/rocky:9"], catch_exceptions=False)
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", ["status", "sync", "plan", "verify", "block", "rollback", "diff"])
def test_names_of_images_are_completed_also_behind_a_colon(command: str) -> None:
    assert completed(command, incomplete="htc/ro") == ["htc/rocky:9"]
    assert completed(command, incomplete="htc/rocky:") == ["htc/rocky:9"]
    assert completed(command, incomplete="x") == []


def test_settings_on_the_line_count_and_wrong_ones_complete_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "other.yaml").write_text("version: 1\nimages: [a/b:1]\n")
    assert completed("status", "--images", "other.yaml", incomplete="a") == ["a/b:1"]
    (here / "publisher.yaml").write_text("nonsense: 1\n")
    assert completed("status", incomplete="a") == []
    assert capsys.readouterr().err == "", "nothing disturbs the line that is being typed"


def test_commands_are_completed() -> None:
    assert completed(incomplete="do") == ["doctor"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str) -> None:
    script = CliRunner().invoke(publisher, ["completion", shell], catch_exceptions=False).stdout
    assert f"_PUBLISHER_COMPLETE={shell}_complete" in script
    assert ("COMP_WORDBREAKS" in script) == (shell == "bash")


def test_the_man_pages_have_every_command_and_setting(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "ci/man", "--output", tmp_path], check=True, capture_output=True)
    page = (tmp_path / "publisher.1").read_text().replace("\\-", "-")
    for command in ("publisher sync", "publisher doctor", "publisher keys new"):
        assert f".SS {command}\n" in page
    assert "--public-key" in (tmp_path / "image-resolver.1").read_text().replace("\\-", "-")
    assert len(list(tmp_path.iterdir())) == 5
    if shutil.which("man"):
        done = subprocess.run(["man", "--warnings", "-l", tmp_path / "publisher.1"], capture_output=True, text=True, check=True)
        assert "publisher - publish container images" in done.stdout
