"""What the documents say and a program can check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from publisher import config
from tests.support.allowed import DIFFERENCES

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_table_of_settings_is_current() -> None:
    assert config.table() in (ROOT / "docs/configuration.md").read_text()


def test_the_list_of_allowed_differences_is_the_one_that_is_tested() -> None:
    listed = re.findall(r"^\| (?!Difference)([^|]+?) \|", (ROOT / "docs/fidelity.md").read_text(), re.MULTILINE)
    assert listed == list(DIFFERENCES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_documents_name_are_there(document: Path) -> None:
    named = re.findall(r"`((?:publisher|tests|docs|ci)/[\w./-]+)`", document.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []
