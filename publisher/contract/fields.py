"""Checks of the manifest's values. The manifest is signed, but its reader still trusts no path and no number in it.

Each check returns the value or raises ValueError. :func:`load_json` comes before them and raises ManifestError itself.
"""

from __future__ import annotations

from publisher.contract import quickjson
from publisher.contract.errors import ManifestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHAPE_ERRORS = (KeyError, TypeError, ValueError, AttributeError)
"""What Python raises when a value of the wrong shape is taken apart."""
_HEXADECIMAL = frozenset("0123456789abcdef")
_SHA256_DIGITS = 64
_ALGORITHM = "sha256:"
_P256_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_P256_BYTES = 91
"""A SubjectPublicKeyInfo of a point on P-256 in DER (RFC 5480): this prefix and the point's two coordinates."""


def load_json(content: bytes, part: str) -> Any:
    """Return the value of a JSON text; ``part`` names the part of the manifest in the error.

    Raises:
        ManifestError: the content is not JSON.
    """
    try:
        return quickjson.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the manifest's {part} is not JSON: {error}") from None


def sha256(value: Any) -> str:
    """Return the value if it is 64 lower-case hexadecimal digits; raise ValueError otherwise."""
    if not isinstance(value, str) or len(value) != _SHA256_DIGITS or set(value) - _HEXADECIMAL:
        raise ValueError(f"{value!r} is not a sha256")
    return value


def digest(value: Any) -> str:
    """Return the value if it is ``sha256:`` and 64 lower-case hexadecimal digits; raise ValueError otherwise."""
    if not isinstance(value, str) or not value.startswith(_ALGORITHM):
        raise ValueError(f"{value!r} is not a sha256 digest")
    sha256(value[len(_ALGORITHM) :])
    return value


def count(value: Any) -> int:
    """Return the value if it is a whole number from 0 to 2^63 - 1; raise ValueError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r} is not a whole number from 0 to 2^63 - 1")
    return value


def p256_key(der: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo in DER if it is of a key on the curve P-256; raise ValueError otherwise."""
    if len(der) != _P256_BYTES or not der.startswith(_P256_PREFIX):
        raise ValueError("the key is not on the curve P-256")
    return der


def one_of(value: Any, known: tuple[str, ...]) -> str:
    """Return the value if it is one of the known words; raise ValueError otherwise."""
    if value not in known:
        raise ValueError(f"{value!r} is not one of {', '.join(known)}")
    return str(value)


def safe_path(value: Any) -> str:
    """Return the value if it is a relative path without ``.``, ``..``, empty parts or control characters.

    Raises:
        ValueError: the value is not such a path.
    """
    if not isinstance(value, str) or any(part in ("", ".", "..") for part in value.split("/")) or not value.isprintable():
        raise ValueError(f"{value!r} is not a safe relative path")
    return value


def texts(value: Any) -> list[dict[str, str]]:
    """Return the value if it is a list of objects whose values are texts; raise ValueError otherwise."""
    for entry in value:
        if not isinstance(entry, dict) or not all(isinstance(text, str) for text in entry.values()):
            raise ValueError(f"{entry!r} is not an object of texts")
    return list(value)
