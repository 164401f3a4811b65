"""Where notices go: addresses of mail, and webhooks. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

MAIL, JSON_HOOK, SLACK_HOOK = "mail", "json", "slack"
"""The channels of notices."""
_ADDRESS = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,63}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True)
class Webhook:
    """A URL that notices are posted to, and the form that it takes: :data:`JSON_HOOK` or :data:`SLACK_HOOK`."""

    form: str
    url: str = field(repr=False)

    @property
    def id(self) -> str:
        """Return a text that names it without its URL, which may be a secret."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]


def is_address(text: str) -> bool:
    """Return whether a text is a plain address of mail, and nothing that a mail program could read as something else."""
    return _ADDRESS.fullmatch(text) is not None
