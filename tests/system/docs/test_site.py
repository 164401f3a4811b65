"""The documentation as a site: it builds strictly, needs no other host, and looks as the pages were meant."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system
LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}


class Page(HTMLParser):
    """What a page loads, and the text of its paragraphs.

    Attributes:
        loaded: addresses of styles, scripts and pictures.
        paragraphs: text of each paragraph.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.paragraphs: list[str] = []
        self._is_open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in LOADED and found.get("rel") != "canonical":
            self.loaded.append(found.get(LOADED[tag]) or "")
        if tag == "p":
            self._is_open = True
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self._is_open = False

    def handle_data(self, data: str) -> None:
        if self._is_open:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    done = subprocess.run([ROOT / "ci/docs", made], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_every_document_is_a_page_that_needs_no_other_host(site: Path) -> None:
    documents = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    for document in documents:
        name = document.with_name("index.html") if document.name == "README.md" else document.with_suffix(".html")
        page = Page((site / name).read_text())
        assert [address for address in page.loaded if re.match(r"[a-z]+:|//", address) and not address.startswith("data:")] == []
        assert len(page.loaded) > 3
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//", style.read_text())
    for script in site.rglob("*.js"):
        hosts = set(re.findall(r"https?://([\w.-]+)/[\w./@-]*", script.read_text()))
        assert not {host for host in hosts if re.search(r"unpkg|cdn|fonts|jsdelivr", host)}


def test_lists_and_tables_are_not_run_into_paragraphs(site: Path) -> None:
    """A list right below a line of text is a list for some readers of Markdown, and a part of the paragraph for this one."""
    wrong = []
    for path in site.rglob("*.html"):
        for paragraph in Page(path.read_text()).paragraphs:
            wrong += [f"{path.name}: {line}" for line in paragraph.splitlines() if re.match(r"\s*(- |\d+\. |\|)", line)]
    assert wrong == []


def _menu(entries: object) -> Iterator[str]:
    if isinstance(entries, str):
        yield entries
    elif isinstance(entries, list):
        for entry in entries:
            yield from _menu(entry)
    elif isinstance(entries, dict):
        for entry in entries.values():
            yield from _menu(entry)


def test_the_menu_has_every_task() -> None:
    named = set(_menu(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    tasks = {"index", "add-image", "run-publisher", "try-execution-point", "osdf", "manifest", "comparison", "glossary"}
    assert {f"{task}.md" for task in tasks} <= named
