"""The results of cache administration as text for a person."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB")
_UNIT_FACTOR = 1000
_SHORT_SHA256 = 16  # digits


def render(value: Any) -> str:
    """Return a result as text: lines ``name = value`` for an object, one line for each element of a list."""
    if isinstance(value, dict):
        return "\n".join(f"{name} = {_literal(item)}" for name, item in value.items())
    return "\n".join("  ".join(_cell(name, item) for name, item in row.items()) for row in value) or "no entries"


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _cell(name: str, value: Any) -> str:
    if name == "sha256":
        return str(value)[:_SHORT_SHA256]
    if name == "size":
        return _format_size(value).rjust(9)
    if name == "used":
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
    if name in ("bytes", "copied"):
        return f"{name} {_format_size(value)}"
    return f"{name} {value}" if name in ("jobs", "user") else str(value or "-")


def _format_size(count: float) -> str:
    unit = 0
    while count >= _UNIT_FACTOR and unit < len(_UNITS) - 1:
        count, unit = count / _UNIT_FACTOR, unit + 1
    return f"{count:.4g} {_UNITS[unit]}"
