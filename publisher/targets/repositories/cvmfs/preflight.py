"""Whether a repository can be published to as it is; where not, what an operator has to do about it."""

from __future__ import annotations

import errno
import os
import pwd
import time
from typing import TYPE_CHECKING, TypeVar

from publisher.errors import RepositoryError
from publisher.system import durable
from publisher.targets.repositories.cvmfs.repository_settings import advice, refusal
from publisher.targets.repositories.cvmfs.stratum import StratumZero

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.targets.repositories.cvmfs.host import CvmfsHost
    from publisher.targets.repositories.cvmfs.server import CvmfsServer

T = TypeVar("T")
_POLL = 0.05  # seconds
_READS = 5  # of one thing, before it is given up: a publish waits for a reader, so that one that comes in between is rare
_AHEAD = 3 * 86400  # seconds before its end that an expiring whitelist is told of
_EXPIRED = ("whitelist expired", "its whitelist has expired", "sign it anew with `cvmfs_server resign {fqrn}` and run again")
_FLAGS = (
    ("whitelist unreachable", "its whitelist cannot be read", "start the web server of the stratum 0 and run again"),
    _EXPIRED,
    ("INCOMPATIBLE", "its layout is of another version of cvmfs_server", "`cvmfs_server migrate {fqrn}` and run again"),
    ("checked out tag", "an old tag is checked out", "go back with `cvmfs_server checkout {fqrn}` and run again"),
    ("stratum1", "this is a stratum 1", "run where the stratum 0 is published"),
)
_MISSING = ("there is no such repository on this host", "`cvmfs_server mkfs {fqrn}`, or correct --repository")
_UNHEALTHY = "mount it with `cvmfs_server mount {fqrn}` (after a reboot: `cvmfs_server mount -a`) and run again"


class Preflight:
    """The condition of the repository ``fqrn``.

    Args:
        fqrn: the repository's name.
        server: the tool.
        host: what it keeps of the repository.
        patience: seconds that are waited for a mount while a transaction ends.
        clock: seconds since the epoch.
    """

    def __init__(self, fqrn: str, server: CvmfsServer, host: CvmfsHost, patience: float, clock: Callable[[], float]) -> None:
        self._fqrn = fqrn
        self._server = server
        self._host = host
        self._patience = patience
        self._clock = clock

    def require_fit(self) -> list[str]:
        """What is to be told of a repository that can be published to.

        Raises:
            RepositoryError: it cannot be published to in this condition.
        """
        said = self._server.listed()
        if said is None:
            raise self._unfit(*_MISSING)
        for flag, reason, hint in _FLAGS:
            if flag in said:
                raise self._unfit(reason, hint)
        configured = self.settings()
        refused = refusal(configured, _user())
        if refused is not None:
            raise self._unfit(*refused)
        closed = self._host.identity() is None and not self._host.publishing()
        if "unhealthy" in said and closed:
            raise self._unfit("its mounts are not as they should be", _UNHEALTHY)
        self.require_mounted()
        return [f"{self._fqrn}: {line}" for line in advice(configured)] + self._whitelist()

    def require_closed(self) -> None:
        """Refuse to go on where a transaction is open, or a publish under way, that is not ours."""
        if self._host.identity() is not None or self._host.publishing():
            raise self._unfit(
                "somebody else's transaction is open",
                "run again when it has ended; it was not touched (if nobody is at work: `cvmfs_server abort {fqrn}`)",
            )

    def require_there(self) -> None:
        """Refuse to go on where this host has no such repository."""
        if not self._host.spool.is_dir():
            raise self._unfit(*_MISSING)

    def require_mounted(self) -> None:
        """Refuse to go on without its mount: a repository looks empty then."""
        self.require_there()
        if self._host.mounted() is None:
            raise self._unmounted()

    def look(self, read: Callable[[], T]) -> T:
        """What ``read`` finds in the mount. While a transaction ends, the tool takes the mount away and puts up another.

        Raises:
            RepositoryError: there is no mount, and nobody is about to put one up; a publish came in between again and again; or
                what ``read`` raises.
        """
        self.require_there()
        deadline = time.monotonic() + self._patience
        settled = False
        disturbed = 0
        while disturbed < _READS:
            mount = self._host.mounted()
            try:
                found = read()
                if self._still(mount):
                    return found
            except (RepositoryError, OSError) as failure:
                late = time.monotonic() >= deadline
                if self._still(mount) and (late or not _torn(failure)):
                    raise
            if self._host.mounted() is None and (settled or time.monotonic() >= deadline):
                raise self._unmounted()
            settled = self._host.identity() is None and not self._host.publishing()
            disturbed += mount is not None and not self._still(mount)
            time.sleep(_POLL)
        raise self._unfit(
            f"a publish came in between, each of {_READS} times that it was read", "run again when fewer are under way"
        )

    def _still(self, mount: tuple[int, int] | None) -> bool:
        return mount is not None and self._host.mounted() == mount

    def _unmounted(self) -> RepositoryError:
        return self._unfit(f"{self._host.published} is not mounted", _UNHEALTHY)

    def settings(self) -> dict[str, str]:
        """What is configured. Raises RepositoryError."""
        doing = f"repository {self._fqrn}: cannot read server.conf"
        with durable.failures(RepositoryError, doing, "run as the repository's owner, or as root"):
            return self._host.settings()

    def stratum(self) -> StratumZero:
        """The stratum 0 that is published to. Raises RepositoryError."""
        url = self.settings().get("CVMFS_STRATUM0")
        if url is None:
            raise self._unfit("its server.conf has no CVMFS_STRATUM0", "run where the stratum 0 is published")
        return StratumZero(url)

    def _whitelist(self) -> list[str]:
        left = self.stratum().whitelist_expiry() - self._clock()
        if left <= 0:
            raise self._unfit(*_EXPIRED[1:])
        if left > _AHEAD:
            return []
        return [f"the whitelist of {self._fqrn} expires in {left / 3600:.0f} h: `cvmfs_server resign {self._fqrn}`"]

    def _unfit(self, reason: str, hint: str) -> RepositoryError:
        return RepositoryError(f"repository {self._fqrn}: {reason}", hint=hint.format(fqrn=self._fqrn))


def _torn(failure: Exception | None) -> bool:
    """Whether the client that served a read was ended under it."""
    cause = failure if isinstance(failure, OSError) else getattr(failure, "__cause__", None)
    return isinstance(cause, OSError) and cause.errno in (errno.ENOTCONN, errno.ECONNABORTED)


def _user() -> str | None:
    """Who this is; None for root."""
    uid = os.geteuid()
    if uid == 0:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
