"""Sizes and times as people write them: ``50 GB``, ``512 MiB``, ``10 min``; the same units as in the publisher's settings."""

from __future__ import annotations

_BYTES = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip
_SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}
_LONGEST = 30  # characters; more is no number that anybody means


def size(text: str) -> int:
    """Bytes: a number with a unit (kB, MB, GB, TB; KiB, MiB, GiB, TiB; B or none). 0 is one.

    Raises:
        ValueError: not a size.
    """
    try:
        return int(_amount(text.casefold(), _BYTES))
    except ValueError:
        raise ValueError(f"{text!r} is no size; write a number of bytes, or '20 GB', '512 MiB'") from None


def share(text: str) -> tuple[int, float]:
    """Bytes and a fraction of a file system, one of them 0: a size, or a percentage such as ``5 %``.

    Raises:
        ValueError: neither.
    """
    if not text.endswith("%"):
        return size(text), 0.0
    number = text[:-1].strip()
    if not (number.isascii() and number.isdigit() and int(number) <= 100):  # noqa: PLR2004 - all there is
        raise ValueError(f"{text!r} is no percentage")
    return 0, int(number) / 100


def seconds(text: str) -> float:
    """Seconds: a number with a unit (s, min, h, d, or none). 0 is one.

    Raises:
        ValueError: not a time.
    """
    try:
        return _amount(text, _SECONDS)
    except ValueError:
        raise ValueError(f"{text!r} is no time; write a number of seconds, or '90 s', '10 min', '4 h'") from None


def whole(text: str) -> int:
    """A whole number, 0 or more, from its digits.

    Raises:
        ValueError: not one.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > _LONGEST:
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def _amount(text: str, units: dict[str, int]) -> float:
    text = text.strip()
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit, digits = text[len(number) :], number.rstrip(" ")
    if unit not in units or not digits.isascii() or not digits.replace(".", "", 1).isdigit() or len(digits) > _LONGEST:
        raise ValueError(text)
    return float(digits) * units[unit]
