"""The preflight check: whether a repository can be published to, and if not, what an operator has to do about it.

Only files of this repository are looked at. ``cvmfs_server list`` walks every repository of the host, and fails or hangs if the
web server of any other one does.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from publisher.targets.repositories.cvmfs.errors import failures, missing, repository_error
from publisher.targets.repositories.cvmfs.repository_settings import advice, gateway, largest_ingested, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.targets.repositories.cvmfs.host import CvmfsHost
    from publisher.targets.repositories.cvmfs.mounts.mount_repair import MountRepair
    from publisher.targets.repositories.cvmfs.mounts.published_mount import PublishedMount
    from publisher.targets.repositories.cvmfs.obstacles import Obstacles
    from publisher.targets.repositories.cvmfs.stratum import StratumZero

_EXPIRY_WARNING = 3 * 86400  # seconds before the whitelist expires from which on it is reported
_EXPIRED = ("its whitelist has expired", "sign it anew with `cvmfs_server resign {fqrn}` and run again")
_STRATUM1 = ("this is a stratum 1", "run on the host where the stratum 0 is published")
_OLD_TAG = ("an old tag is checked out", "go back with `cvmfs_server checkout {fqrn}` and run again")


class Preflight:
    """The preflight check of a repository.

    Args:
        fqrn: the fully qualified repository name.
        host: the repository's files on this host.
        mount: the mount of the published content.
        repair: mounts the repository after a reboot.
        obstacles: what keeps the tool from working.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        fqrn: str,
        host: CvmfsHost,
        mount: PublishedMount,
        *,
        repair: MountRepair,
        obstacles: Obstacles,
        clock: Callable[[], float],
    ) -> None:
        self._fqrn = fqrn
        self._host = host
        self._mount = mount
        self._repair = repair
        self._obstacles = obstacles
        self._clock = clock

    def require_publishable(self) -> list[str]:
        """Check that the repository can be published to; return a line for each thing that should be changed.

        Raises:
            RepositoryError: the repository cannot be published to in its present state.
        """
        settings = self._require_usable()
        repaired = self._repair.require_mounts()
        self._mount.require_mounted()
        return repaired + self._advice(settings)

    def examine(self) -> list[str]:
        """Return a line for each thing that should be changed; nothing is mounted.

        Raises:
            RepositoryError: the repository cannot be published to in its present state.
        """
        found = self._advice(self._require_usable())
        self._mount.require_mounted()
        return found

    def _require_usable(self) -> dict[str, str]:
        if not self._host.is_configured():
            raise missing(self._fqrn)
        if self._host.is_replica():
            raise repository_error(self._fqrn, *_STRATUM1)
        if self._host.has_old_tag():
            raise repository_error(self._fqrn, *_OLD_TAG)
        settings = self.settings()
        refused = refusal(settings, _user_name())
        if refused is not None:
            raise repository_error(self._fqrn, *refused)
        return settings

    def _advice(self, settings: dict[str, str]) -> list[str]:
        return [f"{self._fqrn}: {line}" for line in advice(settings)] + self._check_whitelist()

    def require_no_transaction(self) -> None:
        """Raise RepositoryError if a transaction or a publish that is not ours is in progress."""
        if self._host.open_transaction() is None and self._host.is_publishing():
            locked = self._obstacles.locked()
            if locked is not None:
                raise locked
        if self._host.has_transaction():
            raise repository_error(
                self._fqrn,
                "somebody else's transaction is open",
                "run again when it has ended; it was not touched (if nobody is at work: `cvmfs_server abort {fqrn}`)",
            )

    def settings(self) -> dict[str, str]:
        """Return the repository's settings. Raises RepositoryError."""
        with failures(self._fqrn, "read server.conf"):
            return self._host.settings()

    def gateway(self) -> str | None:
        """Return the URL of the gateway that the repository is published through, None without one. Raises RepositoryError."""
        return gateway(self.settings())

    def largest_ingested(self) -> int | None:
        """See :func:`publisher.targets.repositories.cvmfs.repository_settings.largest_ingested`. Raises RepositoryError."""
        return largest_ingested(self.settings(), _user_name())

    def stratum(self) -> StratumZero:
        """Return the stratum 0 that is published to. Raises RepositoryError."""
        from publisher.targets.repositories.cvmfs.stratum import StratumZero  # noqa: PLC0415 - aiohttp, which only a run needs

        url = self.settings().get("CVMFS_STRATUM0")
        if url is None:
            raise repository_error(
                self._fqrn, "its server.conf has no CVMFS_STRATUM0", "run on the host where the stratum 0 is published"
            )
        return StratumZero(url)

    def _check_whitelist(self) -> list[str]:
        left = self.stratum().whitelist_expiry() - self._clock()
        if left <= 0:
            raise repository_error(self._fqrn, *_EXPIRED)
        if left > _EXPIRY_WARNING:
            return []
        return [f"the whitelist of {self._fqrn} expires in {left / 3600:.0f} h: run `cvmfs_server resign {self._fqrn}`"]


def _user_name() -> str | None:
    """Return the name of the user who runs this process; None for root."""
    uid = os.geteuid()
    if uid == 0:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
