"""Ends the programs that a publisher started when it cannot do so itself, because it was killed (SIGKILL, out of memory).

A small process of its own, in a session of its own, which is started with the first program. It reads from a pipe which
sessions there are, and the pipe's end is the publisher's end. (PR_SET_PDEATHSIG would be simpler, and does not do: the kernel
forgets it when a program changes its credentials, as apptainer does.) Run as a script it needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def kill_session(leader: int) -> None:
    """SIGKILL to all that belongs to a session: mksquashfs and apptainer leave children behind when only they are killed.

    The leader's process group first, at one blow; then what is left of its session, since apptainer gives squashfuse a group of
    its own, and that would hold the SIF open for ever.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    for process in _session(leader):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def watch(lines: Iterable[bytes]) -> None:
    """Follow the sessions that begin (``+PID``) and end (``-PID``); when nothing more comes, kill those that are left."""
    live: set[int] = set()
    for line in lines:
        leader = int(line[1:])
        if line[:1] == b"+":
            live.add(leader)
        else:
            live.discard(leader)
    for leader in live:
        kill_session(leader)


class Reaper:
    """The publisher's end of the pipe. Safe for many threads; a forked process gets a guard of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._pipe = -1

    def start(self) -> None:
        """Start the process, if this one has none yet. Raises OSError."""
        with self._lock:
            if self._owner != os.getpid():
                self._pipe = _start()
                self._owner = os.getpid()

    @contextlib.contextmanager
    def over(self, leader: int) -> Iterator[None]:
        """A session that must not outlive this process, which has a guard; the block ends when the session has."""
        self._tell(b"+%d\n" % leader)
        try:
            yield
        finally:
            self._tell(b"-%d\n" % leader)

    def _tell(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody killed it: the programs' deadlines are left
            os.write(self._pipe, line)


GUARD = Reaper()
"""The guard of this process."""


def _start() -> int:
    """Start the process; the descriptor of the pipe it reads from."""
    out, pipe = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    places = [(os.POSIX_SPAWN_DUP2, descriptor, place) for place, descriptor in enumerate((out, null, null))]
    os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", __file__], {}, file_actions=places, setsid=True)
    os.close(out)
    os.close(null)
    return pipe


def _session(leader: int) -> Iterator[int]:
    """The processes of a session (proc(5), ``/proc/PID/stat``, field 6)."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                status = (process / "stat").read_bytes()
                if int(status.rpartition(b")")[2].split()[3]) == leader:
                    yield int(process.name)


if __name__ == "__main__":
    os.chdir("/")
    watch(sys.stdin.buffer)
