"""Who still needs a SIF: a file ``pins/<sha256>.<process>`` for each job that was given one.

The hook that hands a SIF out has long ended when the job runs, so no lock of its own can protect it. The job's starter lives
as long as the job: a pin names it by process id, start time and PID namespace, and holds while that very process lives. It is
released by the job-exit hook, or by the starter's death. Making a pin and checking it need no lock (see ``room.py``).
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

STARTER = "CONDOR_STARTER_PID"
"""The environment variable in which HTCondor tells a hook who started it."""
_DIRECTORY = "pins"
_FOREIGN = 7 * 86400  # seconds that a pin from another PID namespace holds, where nobody can tell whether its process lives
_START = 19  # of the fields after the name in /proc/PID/stat: proc(5) counts it as the 22nd


class Starter:
    """The process that a job lives and dies with; ``name`` is how pins call it."""

    __slots__ = ("name", "pid")

    def __init__(self, pid: int) -> None:
        """Of a living process. Raises OSError: it is gone, or /proc is closed to us."""
        self.pid = pid
        self.name = f"{pid}-{_started(pid)}-{_namespace()}"


def starter(environ: Mapping[str, str]) -> Starter:
    """The starter of the hook that runs in this process: as its environment says, else its parent.

    Raises:
        OSError: as :class:`Starter`.
    """
    given = environ.get(STARTER, "")
    return Starter(int(given) if given.isascii() and given.isdigit() else os.getppid())


def pin(root: str, sha256: str, by: Starter) -> None:
    """Say that ``by`` needs a SIF of the cache in ``root``; again is nothing. Raises OSError."""
    path = os.path.join(root, _DIRECTORY, f"{sha256}.{by.name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    try:
        os.close(os.open(path, flags, 0o644))
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.close(os.open(path, flags, 0o644))


def release(root: str, by: Starter) -> list[str]:
    """Take back all of a starter's pins; the SIFs' sha256. Raises OSError."""
    released = []
    for sha256, name in _all(root):
        if name == by.name and _removed(root, sha256, name):
            released.append(sha256)
    return released


def held(root: str) -> dict[str, int]:
    """sha256 -> how many living starters need it. Pins of dead ones are removed on the way. Raises OSError."""
    counts: dict[str, int] = {}
    for sha256, name in _all(root):
        if _lives(root, sha256, name):
            counts[sha256] = counts.get(sha256, 0) + 1
        else:
            _removed(root, sha256, name)
    return counts


def _all(root: str) -> list[tuple[str, str]]:
    try:
        names = os.listdir(os.path.join(root, _DIRECTORY))
    except FileNotFoundError:
        return []
    parted = [name.partition(".") for name in names]
    return [(sha256, name) for sha256, dot, name in parted if dot]


def _removed(root: str, sha256: str, name: str) -> bool:
    """Remove a pin; False where somebody else did, or it is somebody else's (in a store that many users pin in)."""
    try:
        os.unlink(os.path.join(root, _DIRECTORY, f"{sha256}.{name}"))
    except (FileNotFoundError, PermissionError):
        return False
    return True


def _lives(root: str, sha256: str, name: str) -> bool:
    pid, _, rest = name.partition("-")
    start, _, namespace = rest.partition("-")
    if not (pid.isascii() and pid.isdigit()):
        return False
    if namespace != _namespace():
        return _is_young(os.path.join(root, _DIRECTORY, f"{sha256}.{name}"))
    try:
        return _started(int(pid)) == start
    except PermissionError:
        return True
    except OSError:
        return False


def _is_young(path: str) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime < _FOREIGN
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
            return file.read(1000).rpartition(b")")[2].split()[_START].decode()
    except (FileNotFoundError, ProcessLookupError, IndexError):
        os.kill(pid, 0)  # raises what is true: no such process, or not ours to look at
        raise PermissionError(pid) from None


def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"
