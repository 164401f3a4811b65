"""Reading the mount that shows the published content, although the tool replaces that mount at the end of a transaction."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, TypeVar

from publisher.errors import RepositoryError
from publisher.targets.repositories.cvmfs.errors import missing, not_mounted, repository_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.targets.repositories.cvmfs.host import CvmfsHost

T = TypeVar("T")
_POLL = 0.05  # seconds
_MAX_READS = 5  # of one thing before giving up: a publish waits for readers, so few of them come in between


class PublishedMount:
    """The mount of the published content of a repository.

    Args:
        fqrn: the fully qualified repository name.
        host: the repository's files on this host.
        timeout: seconds to wait for a mount while a transaction ends.
    """

    def __init__(self, fqrn: str, host: CvmfsHost, timeout: float) -> None:
        self._fqrn = fqrn
        self._host = host
        self._timeout = timeout

    def require_repository(self) -> None:
        """Raise RepositoryError if this host has no such repository."""
        if not self._host.spool.is_dir():
            raise missing(self._fqrn)

    def require_mounted(self) -> None:
        """Raise RepositoryError if the repository is not mounted: it would look empty."""
        self.require_repository()
        if self._host.published_mount() is None:
            raise self._unmounted()

    def read(self, read: Callable[[], T]) -> T:
        """Return the result of ``read``, called while the same mount was there all the time.

        Raises:
            RepositoryError: nothing is mounted and no transaction is ending that will mount it; or a publish came in between
                again and again; or an error that ``read`` raises.
        """
        self.require_repository()
        deadline = time.monotonic() + self._timeout
        settled = False
        disturbed = 0
        while disturbed < _MAX_READS:
            mount = self._host.published_mount()
            try:
                result = read()
                if self._is_unchanged(mount):
                    return result
            except (RepositoryError, OSError) as error:
                late = time.monotonic() >= deadline
                if self._is_unchanged(mount) and (late or not _client_has_ended(error)):
                    raise
            if self._host.published_mount() is None and (settled or time.monotonic() >= deadline):
                raise self._unmounted()
            settled = not self._host.has_transaction()
            disturbed += mount is not None and not self._is_unchanged(mount)
            time.sleep(_POLL)
        raise repository_error(
            self._fqrn,
            f"a publish came in between, each of the {_MAX_READS} times that it was read",
            "run again when fewer publishes are in progress",
        )

    def _is_unchanged(self, mount: tuple[int, int] | None) -> bool:
        return mount is not None and self._host.published_mount() == mount

    def _unmounted(self) -> RepositoryError:
        return not_mounted(self._fqrn, f"{self._host.published} is not mounted")


def _client_has_ended(error: Exception) -> bool:
    """Return whether a read failed because the CVMFS client that served it was ended."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOTCONN, errno.ECONNABORTED)
