"""The commands of the documentation are run as they stand there: blocks that the pages mark, in their order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import ROOT
from tests.support.images.layers import tar
from tests.support.images.runnable import runnable
from tests.support.registries.registry import push_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system
PAGES = ("run-publisher", "try-execution-point", "add-image")
BLOCK = re.compile(r"^<!-- run in (\S+) -->\n\n((?:(?:    .*)?\n)+)", re.MULTILINE)
REGISTRY, IMAGE = "registry.example.org", "myproject/mycode"


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the directory and the commands of each marked block of a page."""
    text = (ROOT / f"docs/{page}.md").read_text()
    found = [(directory, textwrap.dedent(commands)) for directory, commands in BLOCK.findall(text)]
    assert len(found) == text.count("<!-- run in "), f"{page}: a mark stands before a blank line and an indented block"
    return found


@pytest.fixture
def work(tmp_path: Path, registry: RegistryServer, program: Path) -> Path:
    """A directory with the list's repository, in which the commands are found as users would have them."""
    push_image(registry.address, IMAGE, "1.2", [tar(runnable())])
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "image-resolver").symlink_to(program)
    (programs / "publisher").symlink_to(ROOT / ".venv/bin/publisher")
    listed = tmp_path / "list"
    listed.mkdir()
    (listed / "images.yaml").write_text("version: 1\nimages:\n  - htc/other:1\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@localhost"]
    for command in (["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "--message=one"]):
        subprocess.run([*git, *command], cwd=listed, check=True)
    with (listed / "images.yaml").open("a") as file:
        file.write(f"  - {registry.address}/{IMAGE}:1.2\n")
    return tmp_path


def test_the_commands_of_the_pages_work_as_they_stand_there(work: Path, registry: RegistryServer) -> None:
    paths = f"{work}/programs:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "PUBLISHER_INSECURE_REGISTRY": registry.address}
    environment["APPTAINER_NO_PRIVS"] = "1"  # root of a container has fewer capabilities than Apptainer hands on
    said: dict[str, str] = {}
    for page in PAGES:
        for directory, commands in blocks(page):
            script = commands.replace(REGISTRY, registry.address)
            command = ["bash", "-e", "-u", "-o", "pipefail", "-c", script]
            done = subprocess.run(command, cwd=work / directory, env=environment, check=False, capture_output=True, text=True)
            assert done.returncode == 0, f"{page}: {shlex.join(command)}\n{done.stdout}{done.stderr}"
            said[page] = said.get(page, "") + done.stdout
    assert said["run-publisher"].count("it runs") == said["try-execution-point"].count("it runs") == 1
    assert f"{work}/mypool/publish/images.example.org/" in said["try-execution-point"]
    assert "published" in said["add-image"]
