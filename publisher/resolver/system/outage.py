"""A repository that hangs, remembered for a while: so not each job waits its time for it.

The memory is an empty file in the cache whose date is when it was last seen to hang. Whoever finds it too old to count makes it
new before he looks for himself: of many jobs that start together only one waits.
"""

from __future__ import annotations

import os
import time

LASTS = 120
"""Seconds for which a repository that hung is taken to hang."""


class Outage:
    """The memory at ``path``; None for none, and then every job looks for itself."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._had_begun = False

    def lasts(self) -> bool:
        """Whether the repository is to be left alone now. Where this says no, the caller looks, and says what he found."""
        if self._path is None:
            return False
        try:
            age = time.time() - os.stat(self._path).st_mtime
            self._had_begun = True
            if 0 <= age <= LASTS:
                return True
            os.utime(self._path)
        except OSError:
            pass
        return False

    def begin(self) -> None:
        """It did not answer in time."""
        if self._path is not None:
            try:
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                os.utime(self._path)
            except OSError:
                pass  # without the memory the next job waits too

    def end(self) -> None:
        """It answered."""
        if self._path is not None and self._had_begun:
            try:
                os.unlink(self._path)
            except OSError:  # another job was quicker
                self._had_begun = False
