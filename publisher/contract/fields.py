"""What the manifest's values must look like. The manifest is signed, and its reader still trusts no path and no number in it.

Each function gives its value back, or raises ValueError; :func:`loaded` stands before them and raises the error itself.
"""

from __future__ import annotations

from publisher.contract import quickjson
from publisher.contract.errors import ManifestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WRONG = (KeyError, TypeError, ValueError, AttributeError)
"""What wrong shapes raise while a value is taken apart."""
_HEXADECIMAL = frozenset("0123456789abcdef")
_SHA256_DIGITS = 64
_ALGORITHM = "sha256:"


def loaded(content: bytes, what: str) -> Any:
    """The value of a JSON text; ``what`` it should be is for the error.

    Raises:
        ManifestError: no JSON.
    """
    try:
        return quickjson.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the manifest's {what} is not JSON: {error}") from None


def sha256(value: Any) -> str:
    """64 hexadecimal digits, letters small."""
    if not isinstance(value, str) or len(value) != _SHA256_DIGITS or set(value) - _HEXADECIMAL:
        raise ValueError(f"{value!r} where a sha256 belongs")
    return value


def digest(value: Any) -> str:
    """``sha256:`` and 64 hexadecimal digits."""
    if not isinstance(value, str) or not value.startswith(_ALGORITHM):
        raise ValueError(f"{value!r} where a sha256 belongs")
    sha256(value[len(_ALGORITHM) :])
    return value


def count(value: Any) -> int:
    """A whole number from 0 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} where a number belongs")
    return value


def one_of(value: Any, known: tuple[str, ...]) -> str:
    """One of the known words."""
    if value not in known:
        raise ValueError(f"{value!r}, not one of {', '.join(known)}")
    return str(value)


def safe_path(value: Any) -> str:
    """A relative path without ``.``, ``..``, empty parts and control characters."""
    if not isinstance(value, str) or any(part in ("", ".", "..") for part in value.split("/")) or not value.isprintable():
        raise ValueError(f"{value!r} where a path below the root belongs")
    return value
