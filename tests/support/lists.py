"""Small image lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher import images

if TYPE_CHECKING:
    from publisher.images import Entry


def parse(text: str, template: str = images.NAME_TEMPLATES[0]) -> tuple[Entry, ...]:
    listed = images.parse(text.encode(), "images.yaml", template)
    assert listed.patterns == ()
    return listed.entries


def listed(*entries: str) -> str:
    """A list of one group; the first entry stands in line 5."""
    return "version: 1\ngroups:\n  - title: Some\n    images:\n" + "".join(f"      - {entry}\n" for entry in entries)
