"""One transaction at a time in a repository, across all processes of a host: a lock file that says who has it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class RepositoryLockedError(RepositoryError):
    """Another transaction is open."""


@contextlib.contextmanager
def held(path: Path, repository: object) -> Iterator[None]:
    """Hold the lock at ``path``, which is made and never removed; it has our process id in it.

    Raises:
        RepositoryLockedError: another process has it; the message names ``repository`` and that process.
        OSError: it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(files.locked(str(path), deadline=0))
        except TimeoutError:
            holder = path.read_text(encoding="ascii", errors="replace").strip() or "just starting"
            raise RepositoryLockedError(
                f"another transaction is open in {repository}, by process {holder}",
                hint="run again when it has ended; it was not touched",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
