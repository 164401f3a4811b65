"""The state directory: its lock, which allows one run at a time, and its directory for temporary files."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.errors import PublisherError
from publisher.system.durable import delete, failures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class StateDirectoryError(PublisherError):
    """The state directory cannot be used, or another run is using it."""


@contextlib.contextmanager
def lock_state(state: Path, advice: str = "run again when the other run has ended") -> Iterator[None]:
    """Hold the lock of the state directory, which is created if it is missing.

    Args:
        state: the state directory.
        advice: what the operator can do if another run holds the lock.

    Raises:
        StateDirectoryError: another run holds the lock, or the directory cannot be created.
        SpaceError: the disk is full.
    """
    with contextlib.ExitStack() as stack:
        with failures(StateDirectoryError, f"the state directory {state} cannot be used"):
            state.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(files.locked(str(state / "lock"), deadline=0))
            except TimeoutError:
                raise StateDirectoryError(f"another run is using {state}", hint=f"nothing was changed; {advice}") from None
        yield


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
