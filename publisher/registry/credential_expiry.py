"""When a credential ends, where it says so itself: tokens in the form of a JWT do (RFC 7519, "exp")."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publisher.registry.credentials import Credentials

_DAY = 86400.0
_AHEAD = 7 * _DAY
_PARTS = 3


def notice(registry: str, credentials: Credentials, now: float) -> str | None:
    """A line for the operator when a credential has ended or ends within a week, None otherwise.

    Args:
        registry: whose credential it is.
        credentials: looked at for tokens; what a helper makes anew for each run ends soon and need not be told.
        now: seconds since the epoch.
    """
    if credentials.from_helper:
        return None
    end = ends(credentials.identity_token or credentials.password)
    if end is None or end - now > _AHEAD:
        return None
    day = datetime.fromtimestamp(end, UTC).date().isoformat()
    how = "has expired" if end <= now else "expires"
    return f"the credential for {registry} {how} on {day}: renew it with docker login {registry}"


def ends(secret: str) -> float | None:
    """Seconds since the epoch at which a token ends; None for what is no token, or one without an end."""
    parts = secret.split(".")
    if len(parts) != _PARTS:
        return None
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        end = float(json.loads(base64.urlsafe_b64decode(padded))["exp"])
        datetime.fromtimestamp(end, UTC)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError, OSError):
        return None
    return end
