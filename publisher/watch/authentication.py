"""Whether a request comes from a registry of ours: by a secret in a header or in the path, or by a signature of the body.

Distribution and Harbor send a header, Docker Hub and Quay can only be given a URL, and others sign as GitHub does.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from publisher.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHORTEST = 16
"""Characters that a secret has at least."""
_PREFIX = "sha256="


def read_secrets(path: Path) -> tuple[str, ...]:
    """Return the secrets in a file, one in each line. All of them are valid, so that they can be changed one after the other.

    Raises:
        UsageError: the file cannot be read, has no secret, or has one that is too short.
    """
    try:
        secrets = tuple(line.strip() for line in path.read_text("ascii").splitlines() if line.strip())
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if not secrets or min(map(len, secrets)) < SHORTEST:
        hint = f"write one of {SHORTEST} characters or more into each line, such as of: openssl rand -hex 24"
        raise UsageError(f"{path} has no secret, or one that is too short", hint=hint)
    return secrets


def is_secret(given: str, secrets: Sequence[str]) -> bool:
    """Return whether a text is one of the secrets, in a time that does not depend on where it differs.

    The text may be the value of the header ``Authorization``, with or without ``Bearer`` before it.
    """
    text = given.removeprefix("Bearer ").strip().encode("utf-8", "replace")
    return any([hmac.compare_digest(text, secret.encode()) for secret in secrets])  # noqa: C419 - all are compared


def is_signed(signature: str, content: bytes, secrets: Sequence[str]) -> bool:
    """Return whether ``sha256=HEX`` is the HMAC of a body with one of the secrets (GitHub's ``X-Hub-Signature-256``)."""
    given = signature.removeprefix(_PREFIX).encode("utf-8", "replace")
    made = [hmac.new(secret.encode(), content, hashlib.sha256).hexdigest().encode() for secret in secrets]
    return any([hmac.compare_digest(given, one) for one in made])  # noqa: C419 - all are compared
