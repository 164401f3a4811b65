"""The state directory: its lock, which allows one run at a time, and its directory for temporary files.

A run trusts the layers and finished builds that it finds there. So nobody else may be able to write to it, as in the cache of an
execution point.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.errors import AnotherRunError, PublishedManifestError, StateDirectoryError
from publisher.state.outcomes import Outcomes
from publisher.system.durable import delete, failures
from publisher.system.ownership import check_own_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.state.snapshot import Snapshot

_log = logging.getLogger(__name__)
_OUTCOMES = "outcomes.json"

_PRIVATE = ("blobs", "builds", "published")
"""Directories in the state directory that no other account enters."""


@contextlib.contextmanager
def lock_state(state: Path, advice: str = "run again when the other run has ended") -> Iterator[None]:
    """Hold the lock of the state directory, which is created if it is missing.

    Args:
        state: the state directory.
        advice: what the operator can do if another run holds the lock.

    Raises:
        AnotherRunError: another run holds the lock.
        StateDirectoryError: the directory cannot be created, or another account can write to it.
        SpaceError: the disk is full.
    """
    with contextlib.ExitStack() as stack:
        with failures(StateDirectoryError, f"the state directory {state} cannot be used"):
            state.mkdir(mode=0o755, parents=True, exist_ok=True)
            _check(state, state)
            try:
                stack.enter_context(files.locked(str(state / "lock"), deadline=0))
            except TimeoutError:
                raise AnotherRunError(f"another run is using {state}", hint=f"nothing was changed; {advice}") from None
            for name in _PRIVATE:
                (state / name).mkdir(mode=0o700, exist_ok=True)
                _check(state / name, state)
                (state / name).chmod(0o700)
        yield


def _check(directory: Path, state: Path) -> None:
    """Raise StateDirectoryError unless only this account and root can have put something into a directory; OSError on failure."""
    hint = f"nothing was done; delete everything in {state} (the next run makes it again), then run chown and chmod go-w on it"
    check_own_directory(directory, "state directory", hint, StateDirectoryError)


def load_outcomes(state: Path, snapshot: Snapshot) -> Outcomes:
    """Return what became of the images in the last runs: as this host remembers it, or as published where that is newer."""
    try:
        remembered = Outcomes.decode((state / _OUTCOMES).read_bytes())
    except (OSError, PublishedManifestError) as error:
        _log.debug("the outcomes of the last runs are read from the manifest: %s", error)
        return snapshot.outcomes
    return max(remembered, snapshot.outcomes, key=lambda outcomes: outcomes.finished)


def save_outcomes(state: Path, outcomes: Outcomes) -> None:
    """Remember what became of the images; the caller holds the lock.

    Raises:
        StateDirectoryError, SpaceError: the file cannot be written.
    """
    with failures(StateDirectoryError, f"{state / _OUTCOMES} cannot be written"):
        files.replace(str(state / _OUTCOMES), outcomes.encode())


def empty_scratch(state: Path) -> Path:
    """Return the directory for temporary files, emptied of what killed runs left there; the caller holds the lock.

    Raises:
        StateDirectoryError: the directory cannot be created or emptied.
    """
    scratch = state / "tmp"
    with failures(StateDirectoryError, f"{scratch} cannot be created or emptied"):
        scratch.mkdir(parents=True, exist_ok=True)
        scratch.chmod(0o711)  # the test account passes through it
        for remnant in scratch.iterdir():
            delete(remnant)
    return scratch
