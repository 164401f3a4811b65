"""Functions run in a child process: killed at any of their file operations, or without root's privileges."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import itertools
import os
import select
import signal
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_CHANGES = ("fcntl.flock", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate")
_PATIENCE = 240.0
"""Seconds; less than a test may take, so that the test itself says what hung."""
_STARTED: set[int] = set()
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h


def start(function: Callable[[], object]) -> int:
    """Run a function in a child, at the same time; the child's process id. It does not outlive the tests."""
    child = os.fork()
    if child:
        _STARTED.add(child)
        return child
    _STARTED.clear()
    status = 1
    try:
        function()
        status = 0
    except BaseException:  # noqa: BLE001 - a child that returned would run the rest of the tests
        traceback.print_exc()
    finally:
        os._exit(status)


def running(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def end(child: int) -> int:
    """Wait for a child; its exit status, negative for a signal. One that hangs is killed, and an error.

    Raises:
        ChildProcessError: it is not ours, or was waited for before.
    """
    ended = not running(child) or _ends(child)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _STARTED.discard(child)
    assert ended, f"a child hung for {_PATIENCE:.0f} s"
    return status


def _ends(child: int) -> bool:
    descriptor = os.pidfd_open(child)
    try:
        return bool(select.select([descriptor], [], [], _PATIENCE)[0])
    finally:
        os.close(descriptor)


@atexit.register
def _kill() -> None:
    """Whoever reads the output of the tests waits for all that may still write to it."""
    for child in _STARTED:
        with contextlib.suppress(ChildProcessError):
            if running(child):
                os.kill(child, signal.SIGKILL)


def killed(at: int, function: Callable[[], object]) -> bool:
    """Run a function in a child that is killed before its change number ``at`` to the file system; False if it ended before."""
    steps = itertools.count()
    return killed_when(
        lambda event, arguments: (event in _CHANGES or (event == "open" and _writing(arguments))) and next(steps) == at, function
    )


def killed_when(come: Callable[[str, tuple[object, ...]], bool], function: Callable[[], object]) -> bool:
    """Run a function in a child that is killed when ``come`` says so of one of its audit events; False if it ended before.

    Events and their arguments: Python's audit events table. An event is before what it tells of.
    """
    ended = False

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if not ended and come(event, arguments):
            os.kill(os.getpid(), signal.SIGKILL)

    def watched() -> None:
        nonlocal ended
        sys.addaudithook(watch)
        function()
        ended = True  # what follows is not the function's: a measurement of coverage writes its files

    status = end(start(watched))
    assert status in (0, -signal.SIGKILL)
    return status != 0


def _writing(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and flags & os.O_ACCMODE != os.O_RDONLY


def unprivileged(function: Callable[[], object]) -> None:
    """Run a function in a child that may do to our files what an ordinary user may, also when we are root."""

    def child() -> None:
        drop_privileges()
        function()

    assert end(start(child)) == 0


def drop_privileges() -> None:
    """Give up all capabilities of this process, which should be a child: without them root is its files' owner and no more."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
