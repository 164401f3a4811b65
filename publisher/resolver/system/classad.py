r"""Job ads as HTCondor gives them to a hook, and the updates that a hook answers with. This module is pure.

Both have the "long form" of the old ClassAd syntax: one line ``Attribute = expression`` each, names in any case; a string may
contain line feeds. In a string only the quote is escaped (``\"``), and any other backslash stands for itself (HTCondor's
classad/sink.cpp). Only literals are parsed: strings, numbers and booleans. Of any other expression only its presence is known.

HTCondor writes each attribute once. A string that ends a line with ``\"`` could end there or go on, and what follows it could be
an attribute or the string of a user who wants to pass it off as one. So of a name with two different values only its presence is
known, too.

HTCondor reads an answer up to the first invalid line, keeps what came before it, and reports nothing: so the status comes first,
and every line is checked here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional, Union

    Value = Union[str, int, bool]
    ParsedValue = Optional[Union[Value, float]]

MAX_BYTES = 4 << 20
"""Bytes of an ad beyond which it is refused; real ones have 5 to 50 kB."""
_UNCLEAR = "error"
_REAL = frozenset("0123456789.eE+-")
_MAX_DIGITS = 18  # any integer with that many digits fits into 64 bits


def parse(content: bytes) -> dict[str, ParsedValue]:
    """Return the attributes of an ad: name in lower case -> value, or None for an expression.

    Members of a nested ad have the name ``attribute.member``. Attributes that are literally undefined are left out. Bytes that
    are not UTF-8 become surrogates, so that :func:`serialize` restores them.
    """
    attributes: dict[str, ParsedValue] = {}
    for name, expression in _expressions(content.decode("utf-8", "surrogateescape").split("\n")).items():
        if expression.lower() == "undefined":
            continue
        attributes[name] = _parse_value(expression)
        if expression[:1] == "[":
            for part in expression[1:-1].split(";"):
                member, _, value = part.partition("=")
                attributes[f"{name}.{member.strip().lower()}"] = _parse_value(value.strip())
    return attributes


def _expressions(lines: list[str]) -> dict[str, str]:
    """Return name in lower case -> expression; :data:`_UNCLEAR` if there are two different ones."""
    found: dict[str, str] = {}
    rest = iter(lines)
    for line in rest:
        name, equals, expression = line.partition("=")
        name = name.strip().lower()
        if not equals or not _is_name(name):
            continue
        expression = expression.strip()
        if expression[:1] == '"' and expression[-1:] != '"' and expression.replace('\\"', "").count('"') % 2:
            for more in rest:  # a string with a line feed in it
                expression += f"\n{more}"
                if more.rstrip()[-1:] == '"':
                    break
        found[name] = expression if found.get(name, expression) == expression else _UNCLEAR
    return found


def get_string(ad: Mapping[str, ParsedValue], name: str) -> str:
    """Return a string attribute of a parsed ad by its name in any case; empty if it is absent or not a string."""
    value = ad.get(name.lower())
    return value if isinstance(value, str) else ""


def get_integer(ad: Mapping[str, ParsedValue], name: str) -> int | None:
    """Return an integer attribute of a parsed ad by its name in any case; None if it is absent or not an integer."""
    value = ad.get(name.lower())
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def serialize(updates: Mapping[str, Value]) -> bytes:
    """Return the lines of an answer in the given order; control characters in strings become blanks.

    Raises:
        ValueError: a name is not a valid attribute name.
    """
    lines = []
    for name, value in updates.items():
        if not _is_name(name):
            raise ValueError(f"{name!r} is not a valid attribute name")
        lines.append(f"{name} = {_format_value(value)}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def _is_name(name: str) -> bool:
    return name.isascii() and name.isidentifier()


def _parse_value(expression: str) -> ParsedValue:
    if expression[:1] == '"':
        return _parse_string(expression)
    digits = expression.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS:
        return int(expression)
    if "." in digits and not set(digits) - _REAL:
        try:
            return float(expression)
        except ValueError:
            return None
    return {"true": True, "false": False}.get(expression.lower())


def _parse_string(expression: str) -> str | None:
    """Return the value of a string literal, or None if the expression is more than one literal."""
    inner = expression[1:-1]
    if len(expression) < 2 or expression[-1] != '"' or '"' in inner.replace('\\"', ""):  # noqa: PLR2004 - both its quotes
        return None
    return inner.replace('\\"', '"')


def _format_value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    plain = "".join(character if character.isprintable() or _is_raw_byte(character) else " " for character in value)
    quoted = plain.replace('"', '\\"')
    return f'"{quoted}"'


def _is_raw_byte(character: str) -> bool:
    """Return whether a character stands for a byte that was not UTF-8."""
    return "\udc80" <= character <= "\udcff"
