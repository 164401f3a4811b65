"""The outage of a repository that hangs or cannot be read, remembered for a while, so that not every job waits until its timeout.

The memory is an empty file in the cache. Its modification time is when the repository was last seen to hang. A process that finds
the file expired touches it before it probes the repository, so that only one of many jobs waits.
"""

from __future__ import annotations

import os
import time

OUTAGE_DURATION = 120
"""Seconds for which a repository that hung or could not be read is avoided."""


class Outage:
    """The outage that the file at ``path`` remembers. With None nothing is remembered, and every job probes the repository."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._has_file = False

    def is_active(self) -> bool:
        """Return whether to avoid the repository now. If not, the caller probes it and calls :meth:`begin` or :meth:`end`."""
        if self._path is None:
            return False
        try:
            age = time.time() - os.stat(self._path).st_mtime
            self._has_file = True
            if 0 <= age <= OUTAGE_DURATION:
                return True
            os.utime(self._path)
        except OSError:
            pass
        return False

    def begin(self) -> None:
        """Remember that the repository did not answer in time, or could not be read."""
        if self._path is not None:
            try:
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                os.utime(self._path)
            except OSError:
                pass  # the next job waits as well

    def end(self) -> None:
        """Forget the outage, since the repository answered."""
        if self._path is not None and self._has_file:
            try:
                os.unlink(self._path)
            except OSError:  # another job was quicker
                self._has_file = False
