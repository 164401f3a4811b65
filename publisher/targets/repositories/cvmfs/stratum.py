"""The stratum 0 as clients see it: the published revision, and how long the whitelist lets clients trust it.

Formats of ``.cvmfspublished`` and ``.cvmfswhitelist``: CernVM-FS documentation, "Internal Manifest Structure".
"""

from __future__ import annotations

import re
import urllib.parse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import RepositoryError
from publisher.net.addresses import AddressPolicy
from publisher.net.http_errors import HttpRefusal
from publisher.net.small_files import SmallFiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.net.small_files import Resolver


_MAX_SIZE = 64 * 1024  # bytes
_EXPIRY = re.compile(r"E[0-9]{14}", re.ASCII)
_REVISION = re.compile(r"S[0-9]+", re.ASCII)
_REFUSAL = HttpRefusal(RepositoryError, untrusted="")
_OK = 200


class StratumZero:
    """The stratum 0 of the operator's configuration, read without a proxy, which could return an old revision.

    Its server may have any address, such as this host's own; it cannot lead anywhere else.

    Args:
        url: its URL, ``http://`` or ``https://``; or ``file://`` of a directory.
        timeout: seconds in which a file must be there.
        resolver: looks up the addresses of names; None for the host's own.
    """

    def __init__(self, url: str, timeout: float = 20.0, resolver: Resolver | None = None) -> None:
        self._url = url
        self._timeout = timeout
        self._resolver = resolver

    def revision(self) -> int:
        """Return the published repository revision.

        Raises:
            RepositoryError: it cannot be read.
        """
        return int(self._find_line(".cvmfspublished", _REVISION)[1:])

    def whitelist_expiry(self) -> float:
        """Return when the whitelist expires, in seconds since the epoch.

        Raises:
            RepositoryError: it cannot be read.
        """
        text = self._find_line(".cvmfswhitelist", _EXPIRY)[1:]
        try:
            return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
        except ValueError as error:
            raise self._error(f".cvmfswhitelist has the invalid expiry date E{text}") from error

    def _find_line(self, name: str, pattern: re.Pattern[str]) -> str:
        for line in self._lines(name):
            if pattern.fullmatch(line):
                return line
        raise self._error(f"{name} has no line {pattern.pattern}")

    def _lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a file, up to the signature."""
        try:
            content = self._read(name)
        except RepositoryError as error:
            raise self._error(f"{name}: {error.reason}") from error
        except (OSError, ValueError) as error:  # ValueError: not a URL
            raise self._error(f"{name}: {error}") from error
        for line in content.splitlines():
            if line == b"--":
                return
            yield line.decode("ascii", "replace")

    def _read(self, name: str) -> bytes:
        url = urllib.parse.urlsplit(f"{self._url}/{name}")
        if url.scheme == "file":
            return Path(url.path).read_bytes()
        files = SmallFiles(_REFUSAL, AddressPolicy([url.netloc]), proxies={}, timeout=self._timeout, resolver=self._resolver)
        status, content = files.get(url.geturl(), _MAX_SIZE)
        if status != _OK:
            raise RepositoryError(f"its web server answers with status {status}")
        return content

    def _error(self, reason: str) -> RepositoryError:
        return RepositoryError(
            f"the stratum 0 {self._url} cannot be read: {reason}",
            hint="start its web server, or correct CVMFS_STRATUM0 in server.conf; then run again",
        )
