"""The sample: which images of the pool are built again on this host and compared."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.errors import StateDirectoryError
from publisher.system.durable import failures

if TYPE_CHECKING:
    from pathlib import Path

_SECRET_SIZE = 32  # bytes


class Sample:
    """A share of all images, chosen by a secret, so that no machine can tell whether its work will be compared.

    The choice does not depend on the run: an image that a killed run would have compared is compared by the next one.

    Args:
        secret: the secret.
        share: the share, 0 to 1.
    """

    def __init__(self, secret: bytes, share: float) -> None:
        self._secret = secret
        self._share = share

    def has(self, content: str) -> bool:
        """Return whether an image (the digest of its config) belongs to the sample."""
        digest = hmac.digest(self._secret, content.encode(), hashlib.sha256)
        return int.from_bytes(digest[:8], "big") < self._share * (1 << 64)


def open_sample(path: Path, share: float) -> Sample:
    """Return the sample of a deployment; its secret is made and kept in a file if there is none yet.

    Raises:
        StateDirectoryError: the file cannot be used.
    """
    with failures(StateDirectoryError, f"{path} cannot be used"):
        if not path.exists():
            files.replace(str(path), secrets.token_bytes(_SECRET_SIZE), 0o600)
        return Sample(path.read_bytes(), share)
