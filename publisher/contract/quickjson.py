"""``json.loads`` without importing the package ``json``, which would cost every job three milliseconds.

``json`` parses with the interpreter's built-in module ``_json``; this module calls that directly. A text that it refuses, or an
interpreter without it, is handled by ``json`` itself: values and errors are always those of ``json.loads``.
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


class _Defaults:
    """The scanner's options, with the defaults of ``json.loads``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None  # Python 3.15 asks for it
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner has its own and only checks that there is one


def value_at(text: str, start: int) -> Any:
    """Return the JSON value that begins at a place of a text; None if there is none, or the interpreter has no ``_json``."""
    try:
        return None if make_scanner is None else make_scanner(_Defaults)(text, start)[0]
    except (ValueError, StopIteration, RecursionError):
        return None


def loads(content: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
        ValueError: the content is not JSON.
        RecursionError: the content is nested too deeply.
    """
    if make_scanner is not None:
        try:
            text = content.decode()
            value, end = make_scanner(_Defaults)(text, 0)
            if not text[end:].strip(" \t\n\r"):
                return value
        except Exception:  # noqa: BLE001, S110 - json.loads below raises the proper error
            pass
    import json  # noqa: PLC0415 - see the module's docstring

    return json.loads(content)
