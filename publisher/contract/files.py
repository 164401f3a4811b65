"""Files that several processes share: atomic replacement, locks with a deadline, durable directory entries."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time

TYPE_CHECKING = False  # importing typing costs an execution point milliseconds in every job
if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL = 0.05  # seconds between two attempts at a lock: flock(2) has no deadline


def replace(path: str, content: bytes, mode: int = 0o644) -> None:
    """Replace the file at ``path`` atomically: readers see the whole old file or the whole new one, also after a crash.

    The temporary file is beside it as ``.<name>.<random>``. Raises OSError.
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
    """Make changes of a directory's entries (a rename, a new file) durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync a directory fail like this
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: str, deadline: float) -> Iterator[int]:
    """Hold the exclusive flock(2) lock of the file at ``path`` during the block, and yield the file's descriptor.

    The file is created if necessary and never removed. ``deadline`` is the number of seconds to wait for another holder; 0 tries
    once. The kernel releases the lock when its holder dies; a child forked without an exec holds it too.

    Raises:
        TimeoutError: another process held the lock until the deadline.
        OSError: the file cannot be opened or created.
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
