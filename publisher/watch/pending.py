"""The images that were pushed and are not synced yet, also in a file: neither a restart nor a run that is under way loses one."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING

from publisher.contract import files, reference
from publisher.contract.errors import InvalidReferenceError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from publisher.contract.reference import Reference

_log = logging.getLogger(__name__)
_MOST = 10_000


class PendingPushes:
    """The images, each once, however often it was pushed. One thread adds, another one takes.

    Args:
        path: the file; what it has from before is waiting.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._waiting = dict.fromkeys(_load(path))
        self._taken: list[Reference] = []

    def add(self, images: Iterable[Reference]) -> bool:
        """Add images; return False, and add none, if too many are waiting. An image that is being synced waits once more."""
        with self._changed:
            more = dict.fromkeys([*self._waiting, *images])
            if len(more) > _MOST:
                return False
            self._waiting = more
            self._save()
            self._changed.notify()
        return True

    def take(self, timeout: float | None = None) -> list[Reference]:
        """Return all images that wait, once there are any; :meth:`done` follows. Return none after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, timeout)
            self._taken, self._waiting = list(self._waiting), {}
            return self._taken

    def done(self) -> None:
        """Forget the images that were taken last."""
        with self._changed:
            self._taken = []
            self._save()

    def _save(self) -> None:
        """Write the file; without it only a restart would lose images, which the timer's sync finds."""
        try:
            content = json.dumps([str(image) for image in dict.fromkeys([*self._taken, *self._waiting])])
            files.replace(str(self._path), content.encode())
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error.strerror)


def _load(path: Path) -> list[Reference]:
    try:
        return [reference.parse(text) for text in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, AttributeError, InvalidReferenceError) as error:
        _log.debug("no pushed images are remembered: %s", error)
        return []
