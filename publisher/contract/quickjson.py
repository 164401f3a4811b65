"""``json.loads`` without the package ``json``, whose import costs a job three milliseconds, patterns compiled and all.

What parses there is a part of the interpreter, ``_json``, and does so here. Whatever it does not like goes to ``json`` itself,
and so does everything on an interpreter that has no such part: values and errors are those of ``json.loads`` in any case.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    make_scanner: Callable[[object], Callable[[str, int], tuple[Any, int]]] | None
else:
    try:
        from _json import make_scanner
    except ImportError:
        make_scanner = None


class _Plain:
    """What ``json.loads`` asks for when it is asked for nothing special."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's own is used; it only wants to find one


def loads(content: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: no JSON.
        RecursionError: nested too deeply.
    """
    if make_scanner is not None:
        try:
            text = content.decode()
            value, end = make_scanner(_Plain)(text, 0)
            if not text[end:].strip(" \t\n\r"):
                return value
        except Exception:  # noqa: BLE001, S110 - json says what is wrong, and in which way
            pass
    import json  # noqa: PLC0415 - see above

    return json.loads(content)
