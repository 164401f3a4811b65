"""Small durable notes about a transaction under way, for whoever finds them after a kill: one JSON object in a file.

A note is on disk when :func:`save` returns, and is never seen half written.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from publisher.contract import files
from publisher.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    T = TypeVar("T")

_SCHEMA = 1


def save(path: Path, values: Mapping[str, object], *, mode: int) -> None:
    """Leave a note with the permission bits ``mode``. Raises OSError."""
    files.replace(str(path), json.dumps({"schema": _SCHEMA, **values}).encode(), mode=mode)


def load(path: Path, parse: Callable[[dict[str, Any]], T], hint: str) -> T | None:
    """What ``parse`` makes of a note's values; None where there is no note.

    Raises:
        RepositoryError: what stands there is no such note of this program; ``hint`` says what to do.
        OSError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return parse(_values(content))
    except (ValueError, KeyError, TypeError, AttributeError) as failure:
        raise RepositoryError(f"{path} is damaged, or of another version: {failure}", hint=hint) from failure


def _values(content: bytes) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(content)
    if values.pop("schema") != _SCHEMA:
        raise ValueError("another schema")
    return values
