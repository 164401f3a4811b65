"""Checks of what the documents say: tables, links, files, commands and flags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click
import pytest

from publisher.cli.main import publisher
from publisher.settings.settings import settings_table
from tests.support.checkout import ROOT
from tests.support.images.tolerated_differences import DIFFERENCES

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = click.Context(publisher)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_table_of_settings_is_current() -> None:
    assert settings_table() in (ROOT / "docs/configuration.md").read_text()


def test_the_list_of_allowed_differences_is_the_one_that_is_tested() -> None:
    listed = re.findall(r"^\| (?!Difference)([^|]+?) \|", (ROOT / "docs/fidelity.md").read_text(), re.MULTILINE)
    assert listed == list(DIFFERENCES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_documents_name_are_there(document: Path) -> None:
    named = re.findall(r"`((?:publisher|tests|docs|ci)/[\w./-]+)`", document.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_tests_that_the_threats_name_are_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", (ROOT / "docs/threats.md").read_text())
    files = {file: ROOT / (file if "/" in file else f"tests/attacks/{file}") for file, _ in named}
    assert len(named) > 60
    assert [test for file, test in named if f"def {test}(" not in files[file].read_text()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", [*DOCUMENTS, *sorted((ROOT / "ci/units").iterdir())], ids=lambda path: path.name)
def test_commands_and_flags_that_documents_name_are_there(document: Path) -> None:
    """As far as they stand in one line with the program's name: ``publisher gc --dry-run``."""
    wrong = []
    for command, rest in re.findall(r"(?:^|[ `/])publisher ([a-z]+)\b([^`|\n#&]*)", document.read_text(), re.MULTILINE):
        found = publisher.get_command(CONTEXT, command)
        flags = re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)
        known = set() if found is None else {flag for option in found.params for flag in option.opts}
        if isinstance(found, click.Group):
            known = {flag for sub in found.commands.values() for option in sub.params for flag in option.opts}
        if found is None and flags:
            wrong.append(command)
        wrong += [f"{command} {flag}" for flag in flags if found is not None and flag not in known | {"--help", "--version"}]
    assert wrong == []


@pytest.mark.parametrize("name", ["gc", "verify", "status", "origin", "rollback", "block", "unblock", "adopt"])
def test_every_command_for_looking_after_things_is_in_the_operators_document(name: str) -> None:
    assert f"publisher {name}" in (ROOT / "docs/operations.md").read_text()
    assert name in publisher.list_commands(CONTEXT)
