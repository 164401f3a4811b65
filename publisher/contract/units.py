"""Sizes, times and numbers as people write them: ``20 GB``, ``512 MiB``, ``10 min``, ``4 h``.

Both sides read the same units. The ``parse_`` functions read the resolver's settings, which are text and may be 0. The
``positive_`` functions read the publisher's YAML files and settings: text or numbers, and more than 0. The resolver reads its
settings in every job, so this module needs no ``re``.
"""

from __future__ import annotations

_BYTES = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip
_SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}
_NO_UNIT = {"": 1}
_MAX_DIGITS = 20  # characters of a number; the largest 64-bit number has 19
_MAX_SHOWN = 60  # characters of a refused value that an error repeats
_SIZE_HELP = "write a number of bytes, or a number with a unit such as '20 GB' or '512 MiB'"
_TIME_HELP = "write a number of seconds, or a number with a unit such as '90 s', '10 min' or '4 h'"


def parse_size(text: str) -> int:
    """Return bytes from a number with an optional unit (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB); 0 is allowed.

    Raises:
        ValueError: the text is not a size.
    """
    try:
        return int(_parse(text, _BYTES))
    except ValueError:
        raise _refused(text, "size", _SIZE_HELP) from None


def parse_share(text: str) -> tuple[int, float]:
    """Return ``(bytes, fraction of a file system)`` from a size or a percentage such as ``5 %``; the other of the two is 0.

    Raises:
        ValueError: the text is neither a size nor a percentage.
    """
    if not text.endswith("%"):
        return parse_size(text), 0.0
    number = text[:-1].strip()
    if not (number.isascii() and number.isdigit() and int(number) <= 100):  # noqa: PLR2004 - a percentage ends at 100
        raise _refused(text, "percentage", "write a whole number from 0 to 100, such as '5 %'")
    return 0, int(number) / 100


def parse_seconds(text: str) -> float:
    """Return seconds from a number with an optional unit (s, min, h, d); 0 is allowed.

    Raises:
        ValueError: the text is not a time.
    """
    try:
        return float(_parse(text, _SECONDS))
    except ValueError:
        raise _refused(text, "time", _TIME_HELP) from None


def parse_count(text: str) -> int:
    """Return a whole number from its digits; 0 is allowed.

    Raises:
        ValueError: the text is not a whole number.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
        raise _refused(text, "whole number")
    return int(text)


def positive_size(value: object) -> int:
    """Return bytes, 1 or more, from a whole number or from a text as :func:`parse_size` reads it.

    Raises:
        ValueError: the value is not a size, or is 0, negative or a fraction of a byte.
    """
    number = _number(value, _BYTES)
    if number is None or number < 1 or number != int(number):
        raise _refused(value, "size", _SIZE_HELP)
    return int(number)


def positive_seconds(value: object) -> float:
    """Return seconds, more than 0, from a number or from a text as :func:`parse_seconds` reads it.

    Raises:
        ValueError: the value is not a time, or is 0 or negative.
    """
    number = _number(value, _SECONDS)
    if number is None or number <= 0:
        raise _refused(value, "time", _TIME_HELP)
    return float(number)


def positive_count(value: object) -> int:
    """Return a whole number, 1 or more, from a number or from its digits in a text.

    Raises:
        ValueError: the value is not a whole number above 0.
    """
    number = _number(value, _NO_UNIT)
    if number is None or number < 1 or number != int(number):
        raise _refused(value, "whole number above 0")
    return int(number)


def format_size(count: int) -> str:
    """Return bytes for people, such as ``1.2 GB``."""
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":  # noqa: PLR2004 - these units are powers of 1000
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def _number(value: object, units: dict[str, int]) -> float | None:
    """Return the amount in the smallest unit, None if the value is not one; True and False are not numbers here."""
    if isinstance(value, str):
        try:
            return _parse(value, units)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < 1 << 63 else None  # refuses infinity and NaN too


def _parse(text: str, units: dict[str, int]) -> float:
    """Return a number times its unit in the smallest unit; raise ValueError if the text is not that."""
    text = text.strip().casefold()
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit, digits = text[len(number) :], number.rstrip(" ")
    if unit not in units or not digits.isascii() or not digits.replace(".", "", 1).isdigit() or len(digits) > _MAX_DIGITS:
        raise ValueError(text)
    return (float(digits) if "." in digits else int(digits)) * units[unit]


def _refused(value: object, kind: str, instead: str = "") -> ValueError:
    shown = repr(value)
    shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"
    return ValueError(f"{shown} is not a valid {kind}" + (f"; {instead}" if instead else ""))
