"""``publisher import`` and ``publisher schema``, in a process of their own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from publisher.images import reader
from tests.support.publisher.host import PROGRAMS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system


def run(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(PROGRAMS / "publisher"), *arguments]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(where), "LC_ALL": "C.UTF-8"}
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=where, env=env)


def test_a_list_that_is_taken_over_whole_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("# Linux\ndebian:12\ngromacs/gromacs:*\n")
    done = run(tmp_path, "import", "old.txt", "--output", "images.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    listed = reader.load(tmp_path / "images.yaml")
    assert [entry.name for entry in listed.entries] == ["library/debian:12"]
    assert [str(pattern) for pattern in listed.patterns] == ["docker.io/gromacs/gromacs:*"]


def test_what_is_told_goes_to_standard_error_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("debian:12\nHTC/x:1\n")
    done = run(tmp_path, "import", "old.txt")
    assert done.returncode == 1
    assert done.stdout == "version: 1\n\ngroups:\n  - title: Images\n    images:\n      - debian:12\n"
    assert done.stderr.startswith("publisher: old.txt:2: not imported: 'HTC/x:1'")


def test_a_recipe_is_recognised_and_its_format_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("version: 1\ninput:\n  - https://quay.io/a/b:1\n")
    assert "      - quay.io/a/b:1\n" in run(tmp_path, "import", "recipe.yaml").stdout
    assert run(tmp_path, "import", "recipe.yaml", "--format", "docker-images").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "nowhere.txt"], "nowhere.txt cannot be read: No such file"),
        (["import"], "Missing argument 'FILE'"),
        (["import", "old.txt", "--format", "toml"], "'toml' is not one of 'auto', 'docker-images', 'recipe'"),
        (["import", "old.txt", "--output", "old.txt"], "old.txt already exists"),
    ],
)
def test_wrong_usage_ends_with_2_and_changes_nothing(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "old.txt").write_text("debian:12\n")
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert (tmp_path / "old.txt").read_text() == "debian:12\n"


def test_the_schema_is_printed(tmp_path: Path) -> None:
    done = run(tmp_path, "schema")
    assert (done.returncode, done.stdout) == (0, reader.schema())
