"""Small image lists for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.images import reader

if TYPE_CHECKING:
    from publisher.images.reader import Entry


def parse(text: str, template: str = reader.NAME_TEMPLATES[0]) -> tuple[Entry, ...]:
    """Return the entries of a list that has no patterns."""
    listed = reader.parse(text.encode(), "images.yaml", template)
    assert listed.patterns == ()
    return listed.entries


def listed(*entries: str) -> str:
    """Return the text of a list with one group; its first entry is in line 5."""
    return "version: 1\ngroups:\n  - title: Some\n    images:\n" + "".join(f"      - {entry}\n" for entry in entries)
