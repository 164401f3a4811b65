"""The lock of a repository: one transaction at a time, across all processes of a host."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.errors import AnotherRunError, RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterator


_EXEC_TIME = 10.0  # seconds, far more than a forked process takes to become another program

RUN_LOCK = "run"
"""Name of the lock file of a whole run, beside that of a transaction."""


class RepositoryLockedError(RepositoryError):
    """Another process has a transaction open in the repository."""


@contextlib.contextmanager
def hold_run(area: Path, repository: object) -> Iterator[None]:
    """Hold the lock of a run in the directory ``area`` for the block.

    Raises:
        AnotherRunError: another publisher holds it; the message names its process.
        OSError: the file cannot be created.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(area / RUN_LOCK, repository))
        except RepositoryLockedError:
            holder = (area / RUN_LOCK).read_text(encoding="ascii", errors="replace").strip() or "that has just started"
            raise AnotherRunError(
                f"another publisher is at work in {repository}, process {holder}",
                hint="nothing was changed; the next run takes over when that one has ended",
            ) from None
        yield


@contextlib.contextmanager
def hold_lock(path: Path, repository: object) -> Iterator[None]:
    """Hold the lock file at ``path`` for the block; the file contains the process id of the holder and is never removed.

    Args:
        path: the lock file, created if it does not exist.
        repository: named in the error message.

    Raises:
        RepositoryLockedError: another process holds the lock; the message names that process.
        OSError: the file cannot be created.
    """
    with contextlib.ExitStack() as stack:
        try:
            descriptor = _lock(path, stack)
        except TimeoutError:
            holder = path.read_text(encoding="ascii", errors="replace").strip() or "that has just started"
            raise RepositoryLockedError(
                f"another transaction is open in {repository}, by process {holder}",
                hint="run again when it has ended; it was not touched",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield


def _lock(path: Path, stack: contextlib.ExitStack) -> int:
    """Return the descriptor of the locked file.

    Where a holder was killed while it started a program, that process has the lock too, until it becomes the program.

    Raises:
        TimeoutError: another process holds the lock.
    """
    try:
        return stack.enter_context(files.locked(str(path), deadline=0))
    except TimeoutError:
        holder = path.read_text(encoding="ascii", errors="replace").strip()
        if not holder.isdecimal() or Path(f"/proc/{holder}").exists():
            raise
        return stack.enter_context(files.locked(str(path), deadline=_EXEC_TIME))
