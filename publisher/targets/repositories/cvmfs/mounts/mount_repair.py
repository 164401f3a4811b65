"""Mounting a repository again after a reboot, which leaves it unmounted.

Each run notes the boot in which it found the repository mounted. If it is unmounted in a later boot and no transaction is open,
the reboot has unmounted it and mounting it changes nothing else. If it is unmounted in the same boot, somebody did that, and has
to be asked.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.targets.repositories.cvmfs.errors import failures, not_mounted

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.targets.repositories.cvmfs.host import CvmfsHost
    from publisher.targets.repositories.cvmfs.server import CvmfsServer

_log = logging.getLogger(__name__)
BOOT_NAME = "boot"
"""The name of the file, in our directory of the repository, that identifies the boot of the last run."""


class MountRepair:
    """The mounts of a repository; ``area`` is our directory of that repository."""

    def __init__(self, area: Path, host: CvmfsHost, server: CvmfsServer) -> None:
        self._boot = area / BOOT_NAME
        self._host = host
        self._server = server

    def require_mounts(self) -> list[str]:
        """Check that the repository is mounted as it should be, or mount it; return a line if it was mounted.

        Raises:
            RepositoryError: it is not mounted, although no transaction is open and no reboot explains that; or mounting failed.
        """
        if self._host.has_transaction():
            return []
        with failures(self._server.fqrn, "look at its mounts"):
            done = []
            if not self._host.is_mounted() and self._is_after_reboot():
                self._server.mount()
                done = [f"mounted {self._server.fqrn} after a reboot"]
                _log.info("%s", done[0])
            if not self._host.is_mounted():
                raise not_mounted(self._server.fqrn, "its mounts are not as they should be")
            self._note_boot()
        return done

    def _is_after_reboot(self) -> bool:
        noted = self._noted_boot()
        return noted is not None and noted != self._host.boot()

    def _noted_boot(self) -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return self._boot.read_text(encoding="ascii")
        return None

    def _note_boot(self) -> None:
        if self._noted_boot() != self._host.boot():
            files.replace(str(self._boot), self._host.boot().encode(), mode=0o644)
