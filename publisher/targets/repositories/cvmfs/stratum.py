"""The stratum 0 as clients see it: which revision is published, and until when the whitelist lets clients trust it.

Formats of ``.cvmfspublished`` and ``.cvmfswhitelist``: CernVM-FS documentation, "Internal Manifest Structure".
"""

from __future__ import annotations

import re
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from publisher.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST = 64 * 1024  # bytes
_EXPIRY = re.compile(r"E[0-9]{14}", re.ASCII)
_REVISION = re.compile(r"S[0-9]+", re.ASCII)


class StratumZero:
    """The stratum 0 at ``url``; ``deadline`` is in seconds for an answer. No proxy is asked: it could answer with what was."""

    def __init__(self, url: str, deadline: float = 20.0) -> None:
        self._url = url
        self._deadline = deadline

    def revision(self) -> int:
        """The published revision.

        Raises:
            RepositoryError: it cannot be read.
        """
        return int(self._line(".cvmfspublished", _REVISION)[1:])

    def whitelist_expiry(self) -> float:
        """When the whitelist expires, seconds since the epoch.

        Raises:
            RepositoryError: it cannot be read.
        """
        text = self._line(".cvmfswhitelist", _EXPIRY)[1:]
        try:
            return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
        except ValueError as error:
            raise self._error(f".cvmfswhitelist says E{text}") from error

    def _line(self, name: str, wanted: re.Pattern[str]) -> str:
        for line in self._lines(name):
            if wanted.fullmatch(line):
                return line
        raise self._error(f"{name} has no line {wanted.pattern}")

    def _lines(self, name: str) -> Iterator[str]:
        """The lines up to the signature."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self._url}/{name}", timeout=self._deadline) as answer:
                content = answer.read(_LARGEST)
        except (OSError, ValueError) as error:  # ValueError: no URL
            raise self._error(f"{name}: {error}") from error
        for line in content.splitlines():
            if line == b"--":
                return
            yield line.decode("ascii", "replace")

    def _error(self, reason: str) -> RepositoryError:
        return RepositoryError(
            f"the stratum 0 {self._url} cannot be read: {reason}",
            hint="start its web server, or correct CVMFS_STRATUM0 in server.conf; then run again",
        )
