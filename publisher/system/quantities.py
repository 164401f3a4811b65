"""Sizes and times as people write them: ``20 GB``, ``512 MiB``, ``4 h``."""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)", re.ASCII)
_BYTES = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip
_THOUSAND = 1000
_SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}


def size(value: object) -> int:
    """Bytes: a whole number of them, or a text with a unit (kB, MB, GB, TB; KiB, MiB, GiB, TiB; B or none).

    Raises:
        ValueError: not a size, or none at all.
    """
    number = _amount(value, {unit.casefold(): factor for unit, factor in _BYTES.items()})
    if number is None or number < 1 or number != int(number):
        raise ValueError(f"{_shown(value)} is no size; write a number of bytes, or a text such as '20 GB' or '512 MiB'")
    return int(number)


def seconds(value: object) -> float:
    """Seconds: a number of them, or a text with a unit (s, min, h, d, or none).

    Raises:
        ValueError: not a time, or none at all.
    """
    number = _amount(value, _SECONDS)
    if number is None or number <= 0:
        raise ValueError(f"{_shown(value)} is no time; write a number of seconds, or a text such as '90 s', '10 min' or '4 h'")
    return float(number)


def whole(value: object) -> int:
    """A whole number above zero, or its digits in a text.

    Raises:
        ValueError: not one.
    """
    number = _amount(value, {"": 1})
    if number is None or number < 1 or number != int(number):
        raise ValueError(f"{_shown(value)} is no whole number above zero")
    return int(number)


def size_text(count: int) -> str:
    """Bytes for people: ``1.2 GB``; empty for none."""
    if not count:
        return ""
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < _THOUSAND or unit == "TB":
            break
        amount /= _THOUSAND
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def _amount(value: object, units: dict[str, int]) -> float | None:
    """The amount in the smallest unit; None where it is not one. A bool is no number here, though Python thinks so."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, str):
        return value if abs(value) < 1 << 63 else None  # infinity and nan among the rest
    match = _QUANTITY.fullmatch(value.strip())
    if match is None or match[2].casefold() not in units:
        return None
    number, factor = match[1], units[match[2].casefold()]
    return float(number) * factor if "." in number else int(number) * factor


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"  # noqa: PLR2004 - what a line of text has room for
