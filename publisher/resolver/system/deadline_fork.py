"""Work that may never end, done in a child process that is given up on when its time has passed.

A read from a hung CVMFS mount or a name server that is silent blocks a thread beyond the reach of any time-out, and at its
worst beyond the reach of SIGKILL. So it is done by a child: the answer comes through a pipe, and a child that is late is
killed, not waited for. Attempts that were started together run at the same time. Locks that the parent has are not the child's:
it would hold them for as long as it hangs.
"""

from __future__ import annotations

import os
import select
import time

from publisher.contract.errors import ExpectedError
from publisher.resolver.errors import DeadlineError, FetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DONE, _FAILED, _BUG = b"+", b"-", b"!"  # first byte of an answer; its size and a line's end follow, and then the rest
_MOST_HEAD = 22  # bytes: kind, digits, line's end
_CHUNK = 1 << 20
_PARTING = 0.05  # seconds in which a child that has answered ends
_DESCRIPTORS = 1024  # this program opens few; the limit may be a million


class ForkedCall:
    """A function that runs in a child, and its answer."""

    def __init__(self, work: Callable[[], bytes]) -> None:
        """Start ``work``; what it raises of OSError and ExpectedError becomes :meth:`result`'s error."""
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
            DeadlineError: it did not end in time.
        """
        answer = b""
        try:
            while not _is_whole(answer):
                if not select.select([self._answer], [], [], max(0.0, until - time.monotonic()))[0]:
                    self.give_up()
                    raise DeadlineError("no answer in time")
                chunk = os.read(self._answer, _CHUNK)
                if not chunk:
                    break
                answer += chunk
            self._part()
        finally:
            os.close(self._answer)
        kind, (_, _, rest) = answer[:1], answer[1:].partition(b"\n")
        if not _is_whole(answer):
            raise RuntimeError(f"the child that should have answered broke down after {len(answer)} bytes")
        if kind == _DONE:
            return rest
        if kind == _FAILED:
            raise FetchError(rest.decode("utf-8", "replace"))
        raise RuntimeError(f"the child that should have answered broke down: {rest.decode('utf-8', 'replace')}")

    def _part(self) -> None:
        """Let the child end. A child of its own that hangs may hold the pipe open for ever; then nobody waits for it."""
        if select.select([self._answer], [], [], _PARTING)[0]:
            os.waitpid(self._child, 0)
        else:
            os.waitpid(self._child, os.WNOHANG)

    def give_up(self) -> None:
        """Kill the child; one that hangs in the kernel is left to it."""
        import signal  # noqa: PLC0415 - a millisecond, and most children answer

        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, os.WNOHANG)


def _is_whole(answer: bytes) -> bool:
    """Whether an answer has all its bytes: its end is told by its size, since the pipe's may never come."""
    head, line_end, _ = answer[:_MOST_HEAD].partition(b"\n")
    return bool(line_end) and len(answer) == len(head) + 1 + int(head[1:])


def _run(work: Callable[[], bytes], write: int) -> None:
    """The child's life: nothing of it reaches the streams of the parent, whose answer they carry."""
    try:
        os.closerange(3, write)
        os.closerange(write + 1, _DESCRIPTORS)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        try:
            answer = _DONE + work()
        except (OSError, ExpectedError) as error:
            answer = _FAILED + str(error).encode("utf-8", "replace")
        except Exception as error:  # noqa: BLE001 - a bug must reach the parent, and its traceback, not vanish with the child
            answer = _BUG + repr(error).encode("utf-8", "replace")
        view = memoryview(b"%b%d\n%b" % (answer[:1], len(answer) - 1, answer[1:]))
        while view:
            view = view[os.write(write, view) :]
    finally:
        os._exit(0)
