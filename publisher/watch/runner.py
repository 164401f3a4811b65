"""Runs syncs for pushed images, one after the other, each as a process of its own and never beside another run.

A process of its own reads the settings and the list anew, and whatever becomes of it, the listener stays. It is not ended with
the listener: a transaction goes to its end.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from publisher.errors import ANOTHER_RUN, CommandError, PublisherError
from publisher.system import command
from publisher.watch.selection import select_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from publisher.images.entry import ImageList
    from publisher.watch.pending import PendingPushes

_log = logging.getLogger(__name__)
_DEADLINE = 24 * 3600.0
_PAUSE = 5.0
"""Seconds before another look at a run that is under way."""
_EXPECTED = (0, 1, 2, 4, ANOTHER_RUN)


class SyncRunner:
    """Takes pushed images and syncs them.

    Args:
        pending: where they wait.
        load_list: returns the image list; raises PublisherError.
        sync: syncs these names and returns the exit status.
        is_running: returns whether another run is under way.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        pending: PendingPushes,
        load_list: Callable[[], ImageList],
        sync: Callable[[Sequence[str]], int],
        *,
        is_running: Callable[[], bool],
        pause: Callable[[float], object],
    ) -> None:
        self._pending = pending
        self._load_list = load_list
        self._sync = sync
        self._is_running = is_running
        self._pause = pause

    def run_next(self, timeout: float | None = None) -> None:
        """Wait for pushed images, and sync them; they are pending until their sync has run. Return after ``timeout`` seconds."""
        pushed = self._pending.take(timeout)
        if not pushed:
            return
        try:
            batches = select_names(self._load_list(), pushed).batches()
        except PublisherError as error:
            _log.error("pushed images wait for the timer's sync, because the list cannot be used: %s", error)
            batches = []
        for names in batches:
            self._sync_alone(names)
        self._pending.done()

    def _sync_alone(self, names: Sequence[str]) -> None:
        """Sync names once no other run is under way."""
        _log.info("pushed: %s", ", ".join(names))
        while True:
            while self._is_running():
                self._pause(_PAUSE)
            try:
                status = self._sync(names)
            except CommandError as error:
                _log.error("the sync of %s failed; the timer's sync tries again: %s", ", ".join(names), error)
                return
            if status != ANOTHER_RUN:
                return
            self._pause(_PAUSE)


def run_sync_process(argv: Sequence[str], environment: Mapping[str, str], names: Sequence[str]) -> int:
    """Run a sync of names as a process, log what became of them, and return its exit status.

    Args:
        argv: the command ``publisher sync --json`` with its flags.
        environment: its environment, with what gives it access to registries, keys and tokens.
        names: the names.

    Raises:
        CommandError: it could not be started, was ended by a signal, or has met a bug.
    """
    done = command.run(
        [*argv, *names], deadline=_DEADLINE, env=environment, accept=_EXPECTED, guarded=False, name="publisher sync"
    )
    if done.status == ANOTHER_RUN:
        return done.status
    try:
        images = json.loads(done.stdout)["images"]
    except (ValueError, TypeError, KeyError):
        _log.warning("the sync of %s ended with status %d: %s", ", ".join(names), done.status, done.stderr.strip()[-500:])
        return done.status
    for image in images:
        _log.info("%s: %s: %s", image["name"], image["result"], image["reason"])
    return done.status
