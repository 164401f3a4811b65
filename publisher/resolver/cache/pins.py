"""Pins: files ``pins/<sha256>.<process>`` that keep a SIF from being evicted while a job uses it.

The hook that hands out a SIF has ended long before the job runs, so a lock of the hook cannot protect the SIF. The job's starter
lives as long as the job: a pin names the starter by its process ID, start time and PID namespace, and is valid while that very
process lives. It is removed by the job-exit hook, or after the starter's death. Making a pin and checking it need no lock
(see :mod:`publisher.resolver.cache.eviction`).

Nobody can tell whether a process of another PID namespace lives, and each pilot in a container has its own namespace. A pin of
another namespace is *soft* once it is an hour old: it is ignored if nothing else frees enough space. A SIF that a job has open
stays readable for it on a local file system even when it is evicted.
"""

from __future__ import annotations

import os
import time

from publisher.resolver.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STARTER_VARIABLE = "CONDOR_STARTER_PID"
"""The environment variable in which HTCondor gives a hook the process ID of the starter."""
_DIRECTORY = "pins"
_UNCHECKED_LIFETIME = 7 * 86400
"""Seconds for which a pin is valid if its process cannot be checked, or if another user made it, who may name any process."""
_SOFT_AGE = 3600
"""Seconds since a pin was last made after which a pin of another PID namespace is soft."""
_HIDDEN = "0"  # start time of a live process that /proc does not show to this user (hidepid)
_START_FIELD = 19  # of the fields after the name in /proc/PID/stat; proc(5) counts it as the 22nd


class Starter:
    """The process that lives exactly as long as a job.

    Attributes:
        pid: its process ID.
        name: its name in pins, ``<process ID>-<start time>-<PID namespace>``.
    """

    __slots__ = ("name", "pid")

    def __init__(self, pid: int) -> None:
        """Describe a live process other than init, which adopts orphans. Raise OSError if there is no such process."""
        if pid <= 1:
            raise ProcessLookupError(pid)
        self.pid = pid
        try:
            start = _start_time(pid)
        except PermissionError:
            start = _HIDDEN
        self.name = f"{pid}-{start}-{_pid_namespace()}"


def find_starter(environ: Mapping[str, str]) -> Starter:
    """Return the starter of the hook in this process: the one that the environment names, else the parent process.

    Raises:
        OSError: there is no such process.
    """
    value = environ.get(STARTER_VARIABLE, "")
    return Starter(int(value) if value.isascii() and value.isdigit() else os.getppid())


def pin(root: str, sha256: str, by: Starter) -> None:
    """Make or renew the pin of a SIF of the cache in ``root`` by a starter. Raise OSError if that fails."""
    path = os.path.join(root, _DIRECTORY, f"{sha256}.{by.name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # EXCL: never follow or open what another user created
    try:
        try:
            os.close(os.open(path, flags, 0o644))
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.close(os.open(path, flags, 0o644))
    except FileExistsError:
        os.utime(path, follow_symlinks=False)
    log.debug("pinned %s in %s for the starter %d", sha256, root, by.pid)


def unpin(root: str, sha256: str, by: Starter) -> None:
    """Remove one pin of a starter; do nothing if there is none."""
    _unlink(root, sha256, by.name)


def release(root: str, by: Starter) -> list[str]:
    """Remove all pins of a starter; return the sha256 of each SIF. Raise OSError if the cache cannot be read."""
    released = [sha256 for sha256, name in _list_pins(root) if name == by.name and _unlink(root, sha256, name)]
    log.debug("released %d pins of the starter %d in %s", len(released), by.pid, root)
    return released


def remove_all(root: str) -> None:
    """Remove the pins of all starters, dead or alive. Raise OSError if the cache cannot be read."""
    for sha256, name in _list_pins(root):
        _unlink(root, sha256, name)


def count_pins(
    root: str, on_expired: Callable[[str, float], None] = lambda _, __: None, *, ignore_soft: bool = False
) -> dict[str, int]:
    """Return ``sha256 -> number of valid pins``, and remove the invalid ones.

    Args:
        root: directory of the cache.
        on_expired: called with the sha256 of each removed pin and the time at which it was made, since a job used that SIF.
        ignore_soft: do not count soft pins.

    Raises:
        OSError: the cache cannot be read.
    """
    counts: dict[str, int] = {}
    for sha256, name in _list_pins(root):
        if _is_valid(root, sha256, name):
            if not (ignore_soft and _is_soft(root, sha256, name)):
                counts[sha256] = counts.get(sha256, 0) + 1
        else:
            made = _creation_time(root, sha256, name)
            if _unlink(root, sha256, name):
                log.debug("removed the pin %s.%s: its starter is dead or cannot be checked any more", sha256, name)
                on_expired(sha256, made)
    return counts


def _list_pins(root: str) -> list[tuple[str, str]]:
    """Return the sha256 and the name of the starter of each pin."""
    try:
        names = os.listdir(os.path.join(root, _DIRECTORY))
    except FileNotFoundError:
        return []
    parts = [name.partition(".") for name in names]
    return [(sha256, name) for sha256, dot, name in parts if dot]


def _creation_time(root: str, sha256: str, name: str) -> float:
    try:
        return os.lstat(os.path.join(root, _DIRECTORY, f"{sha256}.{name}")).st_ctime
    except FileNotFoundError:
        return 0.0


def _unlink(root: str, sha256: str, name: str) -> bool:
    """Remove a pin; return False if it is gone already, or belongs to another user of a store."""
    try:
        os.unlink(os.path.join(root, _DIRECTORY, f"{sha256}.{name}"))
    except (FileNotFoundError, PermissionError):
        return False
    return True


def _is_soft(root: str, sha256: str, name: str) -> bool:
    namespace = name.partition("-")[2].partition("-")[2]
    return namespace != _pid_namespace() and not _is_younger(os.path.join(root, _DIRECTORY, f"{sha256}.{name}"), _SOFT_AGE)


def _is_valid(root: str, sha256: str, name: str) -> bool:
    """Return whether the starter of a pin lives, or may live and the pin is not too old."""
    pid, _, rest = name.partition("-")
    start, _, namespace = rest.partition("-")
    if not (pid.isascii() and pid.isdigit()):
        return False
    path = os.path.join(root, _DIRECTORY, f"{sha256}.{name}")
    if namespace != _pid_namespace():
        return _is_younger(path)
    try:
        is_alive = start in (_start_time(int(pid)), _HIDDEN)
    except PermissionError:
        is_alive = True
    except (OSError, OverflowError):
        is_alive = False
    return is_alive and (_is_own(path) or _is_younger(path))


def _is_own(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except FileNotFoundError:
        return False


def _is_younger(path: str, seconds: float = _UNCHECKED_LIFETIME) -> bool:
    """Return whether a file is younger than that by its ctime, the only time that its owner cannot set."""
    try:
        return time.time() - os.lstat(path).st_ctime < seconds
    except FileNotFoundError:
        return False


def _start_time(pid: int) -> str:
    """Return when a process started, in ticks since the boot. Together with its ID it identifies a process for ever.

    Raises:
        PermissionError: the process lives, but /proc does not show it to this user (hidepid).
        OSError: there is no such process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(1000).rpartition(b")")[2].split()
        state, start = fields[0], fields[_START_FIELD].decode()
    except (FileNotFoundError, ProcessLookupError, IndexError):
        os.kill(pid, 0)  # raises the true reason: no such process, or no permission to see it
        raise PermissionError(pid) from None
    if state in (b"Z", b"X"):
        raise ProcessLookupError(pid)  # dead, but not yet waited for
    return start


def _pid_namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"
