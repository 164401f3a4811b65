"""The disks of a CVMFS repository: its spool, and the storage that the stratum 0 serves.

When the storage is full, the tool says ``(errno: 28)`` or just ``Killed``; when the spool is, ``Aborted``. So after a failure the
disks are looked at as well. A publish that failed leaves the chunk files that it was writing, which keep a full disk full.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import SpaceError
from publisher.targets.repositories.cvmfs.errors import SPOOL_FULL_HINT

if TYPE_CHECKING:
    from publisher.errors import PublisherError
    from publisher.targets.repositories.cvmfs.host import CvmfsHost

_log = logging.getLogger(__name__)
_FULL = 1 << 20  # bytes; with fewer free ones, the tool cannot work
_GC_HINT = "`cvmfs_server gc -f {fqrn}` frees what was removed from the repository; or enlarge the disk"


class CvmfsStorage:
    """The disks of the repository ``fqrn``."""

    def __init__(self, fqrn: str, host: CvmfsHost) -> None:
        self._fqrn = fqrn
        self._host = host

    def explain(self, error: PublisherError) -> PublisherError:
        """Return a SpaceError with the disk that is full in place of an error of the tool; the error itself if none is full."""
        chunks, storage = self._upstream()
        places = (("storage", storage, _GC_HINT), ("storage", chunks, _GC_HINT), ("spool", self._host.spool, SPOOL_FULL_HINT))
        for name, path, hint in places:
            if path is not None and _is_full(path):
                reason = f"repository {self._fqrn}: no space left in the {name} {path}: {error.reason}"
                return SpaceError(reason, hint=hint.format(fqrn=self._fqrn))
        return error

    def sweep(self, since: int, until: float) -> None:
        """Delete the chunk files that a transaction of ours has left; what cannot be deleted is logged.

        While a transaction is open nobody else can publish, so chunk files of that time are its own.

        Args:
            since: when the transaction was opened, in seconds since the epoch.
            until: when it was given up.
        """
        chunks, _ = self._upstream()
        if chunks is None:
            return
        size = 0
        try:
            with os.scandir(chunks) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_file(follow_symlinks=False) and since <= status.st_mtime <= until:
                        os.unlink(entry.path)  # noqa: PTH108 - a DirEntry's path
                        size += status.st_size
        except OSError as error:
            _log.warning("repository %s: unfinished chunks of a failed publish stay in %s: %s", self._fqrn, chunks, error)
        if size:
            _log.info("repository %s: deleted %d bytes of unfinished chunks in %s", self._fqrn, size, chunks)

    def _upstream(self) -> tuple[Path | None, Path | None]:
        """Return the directories for unfinished chunks and for the storage; None for both if it is not on this host."""
        with contextlib.suppress(OSError):
            kind, *directories = self._host.settings().get("CVMFS_UPSTREAM_STORAGE", "").split(",")
            if kind == "local" and len(directories) == 2:  # noqa: PLR2004 - as mkfs writes it
                return Path(directories[0]), Path(directories[1])
        return None, None


def _is_full(path: Path) -> bool:
    """Return whether a disk has no space or no inodes left; False if that cannot be seen."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _FULL or (disk.f_files > 0 and disk.f_favail == 0)
