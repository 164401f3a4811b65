"""The import contracts of pyproject.toml notice a module that is in the wrong folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

LINTER = Path(sys.executable).parent / "lint-imports"
WRONG = [
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
]
"""Modules of ``publisher``, what stands in each, and how the name of the contract begins that it breaks."""


@pytest.fixture(scope="module")
def violations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What import-linter prints about a copy of the package with all wrong modules, by the name of the contract."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "publisher", root / "publisher", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for module, content, _ in WRONG:
        path = root / "publisher" / f"{module}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{content}\n")
    command, env = [str(LINTER), "--no-cache"], {"PYTHONPATH": str(root), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    broken = done.stdout.partition("Broken contracts\n")[2]
    _, *parts = re.split(r"^(.+)\n-+\n", broken, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize(("module", "contract"), [(module, contract) for module, _, contract in WRONG])
def test_a_module_in_the_wrong_folder_breaks_a_contract(violations: dict[str, str], module: str, contract: str) -> None:
    printed = next((text for name, text in violations.items() if name.startswith(contract)), "")
    name = f"publisher.{module.replace('/', '.').removesuffix('.__init__')}"
    assert re.search(rf"^- +{re.escape(name)}( ->|$)", printed, flags=re.MULTILINE), violations
