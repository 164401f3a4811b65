r"""A job's ad as HTCondor hands it to a hook, and the answer that it takes back. Pure.

Both are "long form" in the old ClassAd syntax: a line ``Attribute = expression`` each, names in any case, the last one of a name
counts. Of a string only the quote is escaped (``\"``), a backslash anywhere else stands for itself (HTCondor's
classad/sink.cpp). Only plain values are read: strings, whole numbers and booleans; all others are expressions, of which no more
than their presence is known.

HTCondor reads an answer up to the first line that is none, keeps what came before, and says nothing: so the status stands first,
and every line is checked here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional, Union

    Value = Union[str, int, bool]
    Read = Optional[Value]

MOST_BYTES = 4 << 20
"""Bytes of an ad beyond which it is refused; real ones have 5 to 50 kB."""
_MOST_DIGITS = 18  # what fits into 64 bits for sure


def read(content: bytes) -> dict[str, Read]:
    """The values of an ad, by attribute in small letters: None for an expression, nothing for what is plainly undefined.

    Bytes that are no UTF-8 come back as they were (surrogates).
    """
    found: dict[str, Read] = {}
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        name, equals, expression = line.partition("=")
        name = name.strip()
        if not equals or not _is_name(name):
            continue
        expression = expression.strip()
        if expression.lower() == "undefined":
            found.pop(name.lower(), None)
        else:
            found[name.lower()] = _value(expression)
    return found


def text(ad: Mapping[str, Read], name: str) -> str:
    """A string of an ad, empty where it has none of this name (in any case)."""
    value = ad.get(name.lower())
    return value if isinstance(value, str) else ""


def number(ad: Mapping[str, Read], name: str) -> int | None:
    """A whole number of an ad, None where it has none of this name."""
    value = ad.get(name.lower())
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def written(updates: Mapping[str, Value]) -> bytes:
    """The lines of an answer, in this order; control characters in strings become blanks.

    Raises:
        ValueError: a name that is none.
    """
    lines = []
    for name, value in updates.items():
        if not _is_name(name):
            raise ValueError(f"{name!r} is no name of an attribute")
        lines.append(f"{name} = {_expression(value)}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def _is_name(name: str) -> bool:
    return name.isascii() and name.isidentifier()


def _value(expression: str) -> Value | None:
    if expression[:1] == '"':
        return _string(expression)
    digits = expression.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS:
        return int(expression)
    return {"true": True, "false": False}.get(expression.lower())


def _string(expression: str) -> str | None:
    """The string that an expression is, None where it is more than one string."""
    inner = expression[1:-1]
    if len(expression) < 2 or expression[-1] != '"' or '"' in inner.replace('\\"', ""):  # noqa: PLR2004 - both its quotes
        return None
    return inner.replace('\\"', '"')


def _expression(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    plain = "".join(character if character.isprintable() or _is_byte(character) else " " for character in value)
    quoted = plain.replace('"', '\\"')
    return f'"{quoted}"'


def _is_byte(character: str) -> bool:
    """Whether a character is a byte that was no UTF-8."""
    return "\udc80" <= character <= "\udcff"
