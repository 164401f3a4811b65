"""Expiry of credentials: tokens in the form of a JWT contain the time at which they expire (RFC 7519, "exp")."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publisher.registry.credentials import Credentials

_DAY = 86400.0
_WARN_AHEAD = 7 * _DAY
_JWT_PARTS = 3


def expiry_warning(registry: str, credentials: Credentials, now: float) -> str | None:
    """Return a warning if a credential has expired or expires within a week, None otherwise.

    Args:
        registry: the registry that the credential is for.
        credentials: the credential; one from a credential helper is ignored, because helpers may create short-lived ones.
        now: seconds since the epoch.
    """
    if credentials.from_helper:
        return None
    expiry = expiry_of(credentials.identity_token or credentials.password)
    if expiry is None or expiry - now > _WARN_AHEAD:
        return None
    date = datetime.fromtimestamp(expiry, UTC).date().isoformat()
    verb = "expired" if expiry <= now else "expires"
    return f"the credential for {registry} {verb} on {date}: renew it with docker login {registry}"


def expiry_of(secret: str) -> float | None:
    """Return the seconds since the epoch at which a JWT expires; None if the secret is not a JWT or does not expire."""
    parts = secret.split(".")
    if len(parts) != _JWT_PARTS:
        return None
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        expiry = float(json.loads(base64.urlsafe_b64decode(padded))["exp"])
        datetime.fromtimestamp(expiry, UTC)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError, OSError):
        return None
    return expiry
