"""Who uses what: a file for each SIF that a running job was given, named after the job's starter.

The hook that hands a SIF out ends before its job begins, so no lock of its own can hold the SIF. The starter lives as long as
the job: ``pins/<process id>.<start time>.<place>.<sha256>`` holds the SIF until that process is dead, or the job-exit hook
removes it. Process id and start time (field 22 of /proc/PID/stat, proc(5)) name one process of one boot. ``place`` is the host
and the pid namespace they were read in: a container's process ids mean nothing outside it.

Who hands a SIF out pins it, and then looks whether it is there; who removes one takes it out of sight, and then looks for pins.
So one of the two always sees the other.
"""

from __future__ import annotations

import binascii
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_UNSEEN = 3 * 86400
"""Seconds for which a pin counts whose process cannot be looked at from here, or that another user made in his own interest."""
_STAT_BYTES = 1024
_START_TIME = 22 - 3  # what follows the command's name in parentheses begins with field 3
_HIDDEN = "0"  # start time of a process that is there and hides (mount option hidepid)


def starter(environ: Mapping[str, str]) -> int:
    """The process whose life a job's pins have: HTCondor's starter if it says who it is, else this process's parent."""
    named = environ.get("CONDOR_STARTER_PID", "")
    return int(named) if named.isascii() and named.isdigit() else os.getppid()


def pin(root: str, sha256: str, pid: int) -> bool:
    """Hold a SIF for a process, whether or not it is there; False where that was so already, or nothing can be written here."""
    return mark("pins", root, sha256, pid)


def release(root: str, pid: int, sha256: str = "") -> int:
    """Let go of what a process holds, or of one SIF; how many pins went."""
    began = _started(pid)
    gone = 0
    for name, its_pid, start, place, its_sha256 in _marks("pins", root):
        if its_pid == pid and start == (began or start) and place == _place() and its_sha256 == (sha256 or its_sha256):
            gone += _remove("pins", root, name)
    return gone


def held(root: str, sha256: str) -> bool:
    """Whether a process that lives, or may live, holds a SIF."""
    return any(its_sha256 == sha256 and _lives("pins", root, name) for name, _, _, _, its_sha256 in _marks("pins", root))


def holders(root: str) -> dict[str, list[int]]:
    """sha256 -> the processes that hold it, as those are called where they run."""
    found: dict[str, list[int]] = {}
    for name, pid, _, _, sha256 in _marks("pins", root):
        if _lives("pins", root, name):
            found.setdefault(sha256, []).append(pid)
    return found


def mark(kind: str, root: str, sha256: str, pid: int, content: bytes = b"") -> bool:
    """Make a file in the directory ``kind`` that counts while a process lives; False where it cannot be, or is there."""
    began = _started(pid)
    path = os.path.join(root, kind, f"{pid}.{began}.{_place()}.{sha256}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    if not began:
        return False
    try:
        try:
            descriptor = os.open(path, flags, 0o644)
        except FileNotFoundError:
            os.mkdir(os.path.dirname(path), 0o700)
            descriptor = os.open(path, flags, 0o644)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def marked(kind: str, root: str) -> list[tuple[str, str]]:
    """The files in the directory ``kind`` whose processes live: sha256, path."""
    found = [(sha256, name) for name, _, _, _, sha256 in _marks(kind, root) if _lives(kind, root, name)]
    return [(sha256, os.path.join(root, kind, name)) for sha256, name in found]


def unmark(kind: str, root: str, sha256: str, pid: int) -> None:
    """Remove what :func:`mark` made."""
    _remove(kind, root, f"{pid}.{_started(pid)}.{_place()}.{sha256}")


def sweep(root: str) -> list[tuple[str, float]]:
    """Remove the marks of dead processes; what they held, and when they took it (seconds since the epoch)."""
    gone = []
    for kind in ("pins", "reserved"):
        for name in _names(kind, root):
            parts = _parts(name)
            try:
                taken = os.lstat(os.path.join(root, kind, name)).st_ctime
            except OSError:
                continue
            dead = not _lives(kind, root, name) if parts else taken < time.time() - _UNSEEN
            if dead and _remove(kind, root, name) and parts:
                gone.append((parts[3], taken))
    return gone


def _marks(kind: str, root: str) -> list[tuple[str, int, str, str, str]]:
    """File name, process id, start time, place and sha256 of each."""
    return [(name, *parts) for name in _names(kind, root) if (parts := _parts(name))]


def _names(kind: str, root: str) -> list[str]:
    try:
        return os.listdir(os.path.join(root, kind))
    except OSError:
        return []


def _parts(name: str) -> tuple[int, str, str, str] | None:
    parts = name.split(".")
    if len(parts) != 4 or not (parts[0].isascii() and parts[0].isdigit()):  # noqa: PLR2004 - as the module says
        return None
    return int(parts[0]), parts[1], parts[2], parts[3]


def _lives(kind: str, root: str, name: str) -> bool:
    """Whether the mark counts: its process lives, or might and the mark is not old."""
    parts = _parts(name)
    if parts is None:
        return False
    pid, start, place, _ = parts
    if place == _place() and _started(pid) not in (start, _HIDDEN) and not (start == _HIDDEN and _started(pid)):
        return False
    try:
        status = os.lstat(os.path.join(root, kind, name))
    except OSError:
        return False
    looked_at = place == _place() and status.st_uid == os.geteuid()
    return looked_at or status.st_ctime > time.time() - _UNSEEN


def _started(pid: int) -> str:
    """When a process began, in clock ticks since the boot; empty for one that is dead."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(_STAT_BYTES).rpartition(b")")[2].split()
        return "" if fields[0] in (b"Z", b"X") else fields[_START_TIME].decode()
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except PermissionError:
        return _HIDDEN
    except (OSError, OverflowError):
        return ""
    return _HIDDEN


def _place() -> str:
    """This host and pid namespace."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return f"{binascii.crc32(os.uname().nodename.encode()):08x}-{namespace}"


def _remove(kind: str, root: str, name: str) -> bool:
    try:
        os.unlink(os.path.join(root, kind, name))
    except OSError:
        return False
    return True
