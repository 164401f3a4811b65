"""Where this checkout lies."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = [
    ROOT / "publisher/__init__.py",
    *(path for part in ("contract", "resolver") for path in sorted((ROOT / "publisher" / part).rglob("*.py"))),
]
"""The sources that execution points get."""
