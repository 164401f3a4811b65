"""One name means one thing in the whole package."""

from __future__ import annotations

import ast
import fnmatch
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import publisher

if TYPE_CHECKING:
    import pytest

ROOT = Path(publisher.__file__).parent


def test_no_two_classes_share_a_name() -> None:
    """A class that is found by its name must be the only one."""
    modules: dict[str, list[str]] = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}


def test_no_folder_has_more_modules_than_a_reader_takes_in() -> None:
    """Of more than sixteen modules some belong together, in a folder of their own."""
    modules = {folder: len(list(folder.glob("[!_]*.py"))) for folder in [ROOT, *ROOT.rglob("*/")]}
    assert {str(folder.relative_to(ROOT)): count for folder, count in modules.items() if count > 16} == {}


def test_pytest_looks_into_every_folder_of_tests(pytestconfig: pytest.Config) -> None:
    """Pytest skips folders with some names, ``build`` among them unless it is told otherwise."""
    tests = Path(__file__).parents[1]
    folders = {folder for file in tests.rglob("test_*.py") for folder in file.relative_to(tests).parts[:-1]}
    skipped = pytestconfig.getini("norecursedirs")
    assert [folder for folder in folders if any(fnmatch.fnmatch(folder, pattern) for pattern in skipped)] == []
