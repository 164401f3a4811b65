"""What MkDocs does after a build: the theme's script must not ask another host for more of itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

OUTSIDE = re.compile(r"https://unpkg\.com/[\w.@/-]+")
"""Where Material would fetch diagrams of Mermaid, which no page has, and a worker for pages that are opened from a disk."""


def on_post_build(config: MkDocsConfig) -> None:
    """Put an empty script in place of each."""
    for script in Path(config.site_dir).rglob("*.js"):
        text = script.read_text(encoding="utf-8")
        if OUTSIDE.search(text):
            script.write_text(OUTSIDE.sub("data:text/javascript,", text), encoding="utf-8")
