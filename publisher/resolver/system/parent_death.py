"""The parent-death signal: a hook must not outlive the HTCondor that waits for it.

The kernel's signal can only be requested through ctypes, whose import would cost a warm answer more than all the rest. So
:mod:`publisher.resolver.hook.main` does it in a process that has run for a while.
"""

from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG = 1  # prctl(2)


def request(number: int, parent: int) -> None:
    """Have the kernel send this process the signal ``number`` when its parent dies; send it now if ``parent`` is dead already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
