"""What MkDocs does before and after a build: every page is in a menu, and the theme's script asks no other host for more code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

OUTSIDE = re.compile(r"https://unpkg\.com/[\w.@/-]+")
"""Where Material would fetch diagrams of Mermaid, which no page has, and a worker for pages that are opened from a disk."""


def on_config(config: MkDocsConfig) -> None:
    """Put the pages that the menu lacks at its end, so that a new document is on the site before somebody finds its place."""
    documents = {path.name for path in Path(config.docs_dir).glob("*.md")}
    missing = sorted(documents - set(re.findall(r"[\w-]+\.md", str(config.nav))))
    if missing and config.nav is not None:
        config.nav.append({"More": missing})


def on_post_build(config: MkDocsConfig) -> None:
    """Put an empty script in place of each."""
    for script in Path(config.site_dir).rglob("*.js"):
        text = script.read_text(encoding="utf-8")
        if OUTSIDE.search(text):
            script.write_text(OUTSIDE.sub("data:text/javascript,", text), encoding="utf-8")
