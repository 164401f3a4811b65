"""Who still needs a SIF: a file ``pins/<sha256>.<process>`` for each job that was given one.

The hook that hands a SIF out has long ended when the job runs, so no lock of its own can protect it. The job's starter lives
as long as the job: a pin names it by process id, start time and PID namespace, and holds while that very process lives. It is
released by the job-exit hook, or by the starter's death. Making a pin and checking it need no lock (see ``room.py``).

Of another PID namespace (each pilot in a container has one) nobody here can tell whether the process lives. Such a pin is *soft*
when it is an hour old: it is passed over where nothing else makes room. What a job has open, it keeps on a local file system.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STARTER = "CONDOR_STARTER_PID"
"""The environment variable in which HTCondor tells a hook who started it."""
_DIRECTORY = "pins"
_FOREIGN = 7 * 86400
"""Seconds that a pin holds at most whose process cannot be looked at, or that another user made: he may name any process."""
_SOFT = 3600
"""Seconds since it was made, or made again, after which a pin of another PID namespace is soft."""
_HIDDEN = "0"  # the start of a process that lives, and that /proc does not show to this user (hidepid)
_START = 19  # of the fields after the name in /proc/PID/stat: proc(5) counts it as the 22nd


class Starter:
    """The process that a job lives and dies with; ``name`` is how pins call it."""

    __slots__ = ("name", "pid")

    def __init__(self, pid: int) -> None:
        """Of a living process, other than init, whose children orphans are. Raises OSError: it is gone."""
        if pid <= 1:
            raise ProcessLookupError(pid)
        self.pid = pid
        try:
            start = _started(pid)
        except PermissionError:
            start = _HIDDEN
        self.name = f"{pid}-{start}-{_namespace()}"


def starter(environ: Mapping[str, str]) -> Starter:
    """The starter of the hook that runs in this process: as its environment says, else its parent.

    Raises:
        OSError: as :class:`Starter`.
    """
    given = environ.get(STARTER, "")
    return Starter(int(given) if given.isascii() and given.isdigit() else os.getppid())


def pin(root: str, sha256: str, by: Starter) -> None:
    """Say that ``by`` needs a SIF of the cache in ``root``, or still does. Raises OSError."""
    path = os.path.join(root, _DIRECTORY, f"{sha256}.{by.name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # EXCL: what others put there is neither followed nor opened
    try:
        try:
            os.close(os.open(path, flags, 0o644))
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.close(os.open(path, flags, 0o644))
    except FileExistsError:
        os.utime(path, follow_symlinks=False)


def release(root: str, by: Starter) -> list[str]:
    """Take back all of a starter's pins; the SIFs' sha256. Raises OSError."""
    released = []
    for sha256, name in _all(root):
        if name == by.name and _removed(root, sha256, name):
            released.append(sha256)
    return released


def forget(root: str) -> None:
    """Remove all pins, whoever lives. Raises OSError."""
    for sha256, name in _all(root):
        _removed(root, sha256, name)


def held(root: str, ended: Callable[[str, float], None] = lambda _, __: None, *, firm: bool = False) -> dict[str, int]:
    """sha256 -> how many living starters need it. Pins of dead ones are removed on the way.

    Args:
        root: the cache.
        ended: told of each of those, with the time at which it was made: a job has used that SIF.
        firm: do not count soft pins.

    Raises:
        OSError: the cache cannot be read.
    """
    counts: dict[str, int] = {}
    for sha256, name in _all(root):
        if _lives(root, sha256, name):
            if not (firm and _is_soft(root, sha256, name)):
                counts[sha256] = counts.get(sha256, 0) + 1
        else:
            made = _made(root, sha256, name)
            if _removed(root, sha256, name):
                ended(sha256, made)
    return counts


def _all(root: str) -> list[tuple[str, str]]:
    try:
        names = os.listdir(os.path.join(root, _DIRECTORY))
    except FileNotFoundError:
        return []
    parted = [name.partition(".") for name in names]
    return [(sha256, name) for sha256, dot, name in parted if dot]


def _made(root: str, sha256: str, name: str) -> float:
    try:
        return os.lstat(os.path.join(root, _DIRECTORY, f"{sha256}.{name}")).st_ctime
    except FileNotFoundError:
        return 0.0


def _removed(root: str, sha256: str, name: str) -> bool:
    """Remove a pin; False where somebody else did, or it is somebody else's (in a store that many users pin in)."""
    try:
        os.unlink(os.path.join(root, _DIRECTORY, f"{sha256}.{name}"))
    except (FileNotFoundError, PermissionError):
        return False
    return True


def _is_soft(root: str, sha256: str, name: str) -> bool:
    namespace = name.partition("-")[2].partition("-")[2]
    return namespace != _namespace() and not _is_young(os.path.join(root, _DIRECTORY, f"{sha256}.{name}"), _SOFT)


def _lives(root: str, sha256: str, name: str) -> bool:
    pid, _, rest = name.partition("-")
    start, _, namespace = rest.partition("-")
    if not (pid.isascii() and pid.isdigit()):
        return False
    path = os.path.join(root, _DIRECTORY, f"{sha256}.{name}")
    if namespace != _namespace():
        return _is_young(path)
    try:
        lives = start in (_started(int(pid)), _HIDDEN)
    except PermissionError:
        lives = True
    except (OSError, OverflowError):
        lives = False
    return lives and (_is_ours(path) or _is_young(path))


def _is_ours(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except FileNotFoundError:
        return False


def _is_young(path: str, most: float = _FOREIGN) -> bool:
    """By the one time that its owner cannot set."""
    try:
        return time.time() - os.lstat(path).st_ctime < most
    except FileNotFoundError:
        return False


def _started(pid: int) -> str:
    """When a process began, in ticks since the boot: with its id it names a process for ever.

    Raises:
        PermissionError: it lives, and /proc does not show it to this user (hidepid).
        OSError: no such process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(1000).rpartition(b")")[2].split()
        state, start = fields[0], fields[_START].decode()
    except (FileNotFoundError, ProcessLookupError, IndexError):
        os.kill(pid, 0)  # raises what is true: no such process, or not ours to look at
        raise PermissionError(pid) from None
    if state in (b"Z", b"X"):
        raise ProcessLookupError(pid)  # dead, and only not yet waited for
    return start


def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"
