"""The import contracts of pyproject.toml notice a module that is in the wrong folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

LINTER = Path(sys.executable).parent / "lint-imports"


def violations(root: Path) -> str:
    """What import-linter prints about the copy of the package in ``root``; empty if every contract is kept."""
    command = [str(LINTER), "--no-cache"]
    done = subprocess.run(command, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "publisher", tmp_path / "publisher", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "content", "contract"),
    [
        ("net/wrong", "from publisher.registry import client", "Data flows one way through the publisher"),
        ("wrong/__init__", "", "Data flows one way through the publisher"),
        ("resolver/cache/wrong", "from publisher.resolver.select import resolve", "Data flows one way through the resolver"),
        ("resolver/wrong", "", "Data flows one way through the resolver"),
        ("resolver/hook/wrong", "from publisher.errors import PublisherError", "Data flows one way through the publisher"),
        ("cli/wrong", "from publisher.resolver.select import resolve", "Nothing of the publisher imports the resolver"),
        ("plan/wrong", "import time", "The pure core"),
        ("build/wrong", "import subprocess", "Only the doors to other programs"),
        ("publish/wrong", "import click", "Only the command line"),
        ("provenance/wrong", "import sigstore.models", "Only the doors to sigstore"),
        ("targets/origins/wrong", "import aiohttp", "Only publisher.net, the registry's transport and the listener"),
    ],
)
def test_a_module_in_the_wrong_folder_breaks_a_contract(copy: Path, module: str, content: str, contract: str) -> None:
    path = copy / "publisher" / f"{module}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{content}\n")
    printed = violations(copy)
    broken = printed.partition("Broken contracts")[2]
    assert contract in " ".join(broken.split()), printed
