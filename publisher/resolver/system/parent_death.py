"""A process that ends with its parent: a hook must not outlive the HTCondor that waits for it.

The kernel's parent-death signal can only be requested through ctypes, whose import would cost a warm answer more than all the
rest. So a timer requests it in a process that has run for a while.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the core of signal: importing signal costs every job a millisecond
import os

_DELAY = 1.0  # seconds; a warm answer is there by then
_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent(number: int) -> None:
    """Have the kernel send this process the signal ``number`` when its parent dies, from a second after this call on."""
    parent = os.getppid()

    def request(*_: object) -> None:
        import ctypes  # noqa: PLC0415 - see above

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)

    _signal.signal(_signal.SIGALRM, request)
    _signal.setitimer(_signal.ITIMER_REAL, _DELAY)
