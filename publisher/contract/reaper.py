"""Kills the programs that this process started if this process is itself killed: by SIGKILL, or out of memory.

A shell in a session of its own reads from a pipe which sessions begin and end. When the pipe's other end closes, because the
process that holds it has ended in whatever way, the shell kills the sessions that are left. Both sides use it: the publisher
starts one shell with its first program (:data:`REAPER`), the resolver one for each program that may outlive it.

PR_SET_PDEATHSIG does not do: it reaches no grandchild, the kernel drops it when a program changes its credentials (as apptainer
does), and :mod:`subprocess` cannot ask for it safely beside threads.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SHELL = "/bin/sh"
_SCRIPT = r"""
live=
while read -r event leader; do
    if [ "$event" = begin ]; then
        live="$live $leader"
    else
        others=
        for session in $live; do [ "$session" = "$leader" ] || others="$others $session"; done
        live=$others
    fi
done
for leader in $live; do
    kill -s KILL -- "-$leader"
    for stat in /proc/[0-9]*/stat; do
        read -r line <"$stat" || continue
        set -- ${line##*) }
        process=${stat#/proc/}
        [ "$4" = "$leader" ] && kill -s KILL "${process%/stat}"
    done
done
"""  # the same as kill_session(), by the shell's builtins alone; proc(5): the session is the fourth field after the name


_HELD = (_SHELL, "-c", 'read -r _ && exec "$@" </dev/null', _SHELL)


def held(argv: Sequence[str]) -> tuple[str, ...]:
    """Return a command line that starts a program once a line arrives on its standard input; see :meth:`Reaper.release`.

    A program that is not held runs for a moment before its session is guarded, and outlives a process that is killed in that
    moment. A held program whose line never comes ends. The program itself reads an empty standard input. One that does not exist
    ends with status 127, as in any shell.
    """
    return (*_HELD, *argv)


def kill_session(leader: int) -> None:
    """Send SIGKILL to every process of a session; ``leader`` is its leader's process id.

    The leader's process group is killed first, at once, and then what is left of the session: apptainer gives squashfuse a group
    of its own, which would keep the SIF open for ever.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    for process in _processes_of(leader):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


class Reaper:
    """A shell that outlives this process for a moment, to kill the sessions that this process could not end itself.

    It is safe for many threads. A forked process gets a shell of its own. As a context manager it starts on the way in and
    closes on the way out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._shell: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reaper:  # noqa: PYI034 - Python 3.9 has no Self
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the shell unless this process has one. Raises OSError if it cannot be started."""
        with self._lock:
            if self._owner == os.getpid():
                return
            if self._shell is not None:
                self._shell.poll()  # after a fork: it is the parent's child, not ours, and Popen notices that here
            self._shell = subprocess.Popen(
                [_SHELL, "-c", _SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                env={},
                start_new_session=True,
            )
            self._owner = os.getpid()

    def close(self) -> None:
        """Let the shell kill the sessions that are still guarded, and wait for its end; does nothing if none was started here."""
        with self._lock:
            if self._shell is not None and self._owner == os.getpid():
                self._owner = 0
                self._shell.communicate()

    @contextlib.contextmanager
    def guard(self, leader: int) -> Iterator[None]:
        """Guard a session during the block, which ends after the session does; :meth:`start` comes before it."""
        self._send(b"begin %d\n" % leader)
        try:
            yield
        finally:
            self._send(b"end %d\n" % leader)

    @contextlib.contextmanager
    def release(self, program: subprocess.Popen[bytes]) -> Iterator[None]:
        """Guard the session of a program that was started from :func:`held`, with a pipe as its input, and let it go."""
        with self.guard(program.pid):
            with contextlib.suppress(BrokenPipeError), program.stdin:  # type: ignore[union-attr]  # a pipe; broken if it was killed
                program.stdin.write(b"\n")  # type: ignore[union-attr]
            yield

    def _send(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody killed the shell: the programs still have their deadlines
            os.write(self._shell.stdin.fileno(), line)  # type: ignore[union-attr]  # started, with a pipe


REAPER = Reaper()
"""The reaper of this process, for programs that may run at any time until its end."""
atexit.register(REAPER.close)


def _processes_of(leader: int) -> Iterator[int]:
    """Yield the ids of a session's processes (proc(5), ``/proc/PID/stat``, field 6)."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # the process has just ended
                with open(f"/proc/{name}/stat", "rb") as file:
                    status = file.read()
                if int(status.rpartition(b")")[2].split()[3]) == leader:
                    yield int(name)
