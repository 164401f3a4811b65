"""Work that may never end, done in a child process that is given up on when its time has passed.

A read from a hung CVMFS mount or a name server that is silent blocks a thread beyond the reach of any time-out, and at its
worst beyond the reach of SIGKILL. So it is done by a child: the answer comes through a pipe, and a child that is late is
killed, not waited for. Attempts that were started together run at the same time.
"""

from __future__ import annotations

import os
import select
import signal
import time

from publisher.resolver.errors import FetchError, LateError, ResolverError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DONE, _FAILED, _BUG = b"+", b"-", b"!"  # first byte of an answer
_CHUNK = 1 << 20


class Attempt:
    """A function that runs in a child, and its answer."""

    def __init__(self, work: Callable[[], bytes]) -> None:
        """Start ``work``; what it raises of OSError and ResolverError becomes :meth:`result`'s error."""
        self._answer, write = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            _run(work, write)
        os.close(write)

    def result(self, until: float) -> bytes:
        """What the work returned.

        Args:
            until: reading of the monotonic clock at which the child is given up.

        Raises:
            FetchError: the work failed.
            LateError: it did not end in time.
        """
        answer = b""
        try:
            while select.select([self._answer], [], [], max(0.0, until - time.monotonic()))[0]:
                chunk = os.read(self._answer, _CHUNK)
                if not chunk:
                    os.waitpid(self._child, 0)
                    break
                answer += chunk
            else:
                self.give_up()
                raise LateError("no answer in time")
        finally:
            os.close(self._answer)
        kind, rest = answer[:1], answer[1:]
        if kind == _DONE:
            return rest
        if kind == _FAILED:
            raise FetchError(rest.decode("utf-8", "replace"))
        raise RuntimeError(f"the child that should have answered broke down: {rest.decode('utf-8', 'replace')}")

    def give_up(self) -> None:
        """Kill the child; one that hangs in the kernel is left to it."""
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, os.WNOHANG)


def _run(work: Callable[[], bytes], write: int) -> None:
    """The child's life: nothing of it reaches the streams of the parent, whose answer they carry."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        try:
            answer = _DONE + work()
        except (OSError, ResolverError) as error:
            answer = _FAILED + str(error).encode("utf-8", "replace")
        except Exception as error:  # noqa: BLE001 - a bug must reach the parent, and its traceback, not vanish with the child
            answer = _BUG + repr(error).encode("utf-8", "replace")
        view = memoryview(answer)
        while view:
            view = view[os.write(write, view) :]
    finally:
        os._exit(0)
