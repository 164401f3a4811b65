"""Files that other processes look at while we write them: replaced whole, locked with a deadline, on disk when we say so.

Used by both sides, the publisher and the execution point.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time

TYPE_CHECKING = False  # importing typing costs an execution point milliseconds in every job
if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL = 0.05  # seconds between two tries for a lock: flock(2) has no deadline of its own


def replace(path: str, content: bytes, mode: int = 0o644) -> None:
    """Put ``content`` at ``path``: readers see the old file or the new one, whole, also after a crash.

    The temporary file stands beside it as ``.<name>.<random>``. Raises OSError.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.urandom(8).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(directory or ".")


def sync_directory(path: str) -> None:
    """Make a directory's entries (a rename, a new name) durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that have nothing to sync say so in this way
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: str, deadline: float) -> Iterator[int]:
    """Hold the exclusive flock(2) of the file at ``path`` (made, and never removed); yields its descriptor.

    ``deadline`` is the number of seconds to wait for another holder; 0 tries once. The kernel lets go when the holder dies;
    a child forked without an exec holds it too.

    Raises:
        TimeoutError: another process held it all the time.
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        until = time.monotonic() + deadline
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise TimeoutError(f"{path} is locked by another process") from None
                time.sleep(_POLL)
        yield descriptor
    finally:
        os.close(descriptor)
