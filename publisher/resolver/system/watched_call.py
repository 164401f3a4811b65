"""A child process that makes reads which may hang itself, while its parent watches it.

A process of its own for each read (:mod:`publisher.resolver.system.deadline_fork`) costs a warm answer a third of its CPU time,
and hardly any read hangs. So the first child of a hook makes such reads itself. Before and after each it writes a line into a
pipe, which the parent looks at only if the answer is late. When a read has not ended at its deadline, the parent kills the child,
does not wait for it, and starts another one: for that one this read has failed, and each further read gets a process of its own.
So does a read that comes late, after a download perhaps: nothing that took long is done twice.
"""

from __future__ import annotations

import os
import select
import time

from publisher.contract.errors import ExpectedError
from publisher.resolver.errors import DeadlineError
from publisher.resolver.system import deadline_fork
from publisher.resolver.system.deadline_fork import ForkedCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Union

    Read = Union[ForkedCall, "_OwnRead", "_LateRead"]

_PATIENCE = 0.25  # seconds for which the parent waits for the answer alone: more than a warm one takes
_YOUTH = 2.0  # seconds for which a child makes its reads itself: what it has done by then may be done again
_CHUNK = 1 << 16


class _Reads:
    """How this process makes reads that may hang.

    Attributes:
        process: the process that makes them itself, 0 for none; its children do not.
        pipe: where that one tells its parent of each.
        until: reading of the monotonic clock from which on it makes no more of them itself.
        late: what has hung before, empty for nothing.
    """

    process = 0
    pipe = -1
    until = 0.0
    late = b""


_READS = _Reads()


class WatchedCall:
    """A function that runs in a child process, and once more in another one if a read of :func:`start_read` hangs there."""

    def __init__(self, work: Callable[[], bytes]) -> None:
        """Start ``work``. An OSError or ExpectedError that it raises becomes the error of :meth:`result`."""
        self._work = work
        self._reports, pipe = os.pipe()
        self._rest, self._last = b"", b""  # an incomplete line of the reports; the last complete one

        def work_watched() -> bytes:
            _READS.process, _READS.pipe, _READS.until = os.getpid(), pipe, time.monotonic() + _YOUTH
            return work()

        self._call = ForkedCall(work_watched, keep=pipe)
        os.close(pipe)

    def result(self, until: float) -> bytes:
        """Return what the function returned; see :meth:`ForkedCall.result`."""
        if not self._call.wait(min(until, time.monotonic() + _PATIENCE)) and self._has_late_read(until):
            try:
                return self._call.result(0.0)  # it may have ended just now
            except DeadlineError:
                self._call = ForkedCall(self._work_again)
        os.close(self._reports)
        return self._call.result(until)

    def kill(self) -> None:
        """Kill the child. One that hangs in the kernel is not waited for."""
        self._call.kill()

    def _has_late_read(self, until: float) -> bool:
        """Return whether a read has not ended at its deadline; wait for that or for the answer, until ``until``."""
        pipe: int | None = self._reports
        while True:
            end = min(until, float(self._last.partition(b" ")[0])) if self._last else until
            if self._call.wait(end, pipe):
                return False
            if pipe is None or not select.select([pipe], [], [], 0)[0]:
                return end < until
            chunk = os.read(pipe, _CHUNK)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self._last = lines[-1] if lines else self._last
            pipe = pipe if chunk else None

    def _work_again(self) -> bytes:
        _READS.late = self._last.partition(b" ")[2]
        return self._work()


def start_read(work: Callable[[], bytes], label: str) -> Read:
    """Start a read that may hang: one of this process if its parent watches it and it is young, else one of a child process.

    Reads of child processes run at the same time, those of this process when their results are asked for. It must not hold
    locks meanwhile, which would stay locked for as long as it hangs.

    Args:
        work: returns what it has read.
        label: what is read; no other read has the same.
    """
    name = os.fsencode(label.replace("\n", " "))
    if name == _READS.late:
        return _LateRead()
    is_own = _READS.process == os.getpid() and time.monotonic() < _READS.until
    return _OwnRead(work, name) if is_own else ForkedCall(work)


class _OwnRead:
    """A read that this process makes itself."""

    def __init__(self, work: Callable[[], bytes], name: bytes) -> None:
        self._work = work
        self._name = name
        self._started = time.monotonic()

    def result(self, until: float) -> bytes:
        """Return what was read; see :meth:`ForkedCall.result`. If that takes as long as to ``until``, this process is killed."""
        os.write(_READS.pipe, b"%.6f %b\n" % (until + time.monotonic() - self._started, self._name))
        try:
            return self._work()
        except (OSError, ExpectedError) as error:
            raise deadline_fork.failure(error) from None
        finally:
            os.write(_READS.pipe, b"\n")


class _LateRead:
    """A read that has hung before."""

    def result(self, until: float) -> bytes:
        """Raise DeadlineError."""
        del until
        raise deadline_fork.late()
