"""Run a function in a child process, to kill it at any of its file operations or to run it without root's privileges."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import itertools
import os
import select
import signal
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CHANGES = ("fcntl.flock", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate")
_TIMEOUT = 240.0
"""Seconds for a child to end; less than a test may take, so that the test itself reports what hung."""
_STARTED: set[int] = set()
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h


def start(function: Callable[[], object]) -> int:
    """Start a function in a child process and return its process id. The child does not outlive the tests."""
    child = os.fork()
    if child:
        _STARTED.add(child)
        return child
    _STARTED.clear()
    gc.freeze()  # a collection would copy all memory of the tests
    status = 1
    try:
        function()
        status = 0
    except BaseException:  # noqa: BLE001 - a child that returned would run the rest of the tests
        traceback.print_exc()
    finally:
        os._exit(status)


def running(child: int) -> bool:
    """Return whether a child has not ended yet."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def end(child: int) -> int:
    """Wait for a child and return its exit status, negative for a signal. A child that hangs is killed and fails the test.

    Raises:
        ChildProcessError: the process is not a child of this one, or was waited for before.
    """
    ended = not running(child) or _ends(child)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _STARTED.discard(child)
    assert ended, f"a child hung for {_TIMEOUT:.0f} s"
    return status


def _ends(child: int) -> bool:
    descriptor = os.pidfd_open(child)
    try:
        return bool(select.select([descriptor], [], [], _TIMEOUT)[0])
    finally:
        os.close(descriptor)


@atexit.register
def _kill() -> None:
    """Kill the children that are left: a reader of the tests' output would wait for them."""
    for child in _STARTED:
        with contextlib.suppress(ChildProcessError):
            if running(child):
                os.kill(child, signal.SIGKILL)


def killed(at: int, function: Callable[[], object]) -> bool:
    """Run a function in a child that is killed before change number ``at`` of the file system; return whether it was killed."""
    steps = itertools.count()
    return killed_when(
        lambda event, arguments: (event in _CHANGES or (event == "open" and _writing(arguments))) and next(steps) == at, function
    )


def count_changes(function: Callable[[], object]) -> int:
    """Run a function in a child; return the number of its changes of the file system, before which :func:`killed` can kill it."""
    steps = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        steps += event in _CHANGES or (event == "open" and _writing(arguments))

    def counted() -> None:
        sys.addaudithook(watch)
        function()
        os.write(told, str(steps).encode())

    counts, told = os.pipe()
    try:
        assert end(start(counted)) == 0
        return int(os.read(counts, 20))
    finally:
        os.close(counts)
        os.close(told)


def sample(points: int, most: int) -> Sequence[int]:
    """Return the points, of so many, at which a test kills: ``most`` of them, evenly spread from the first to the last.

    With OSPOOL_EVERY_POINT in the environment these are all points, which takes hours for all tests.
    """
    if points <= most or "OSPOOL_EVERY_POINT" in os.environ:
        return range(points)
    return [number * (points - 1) // (most - 1) for number in range(most)]


def killed_when(condition: Callable[[str, tuple[object, ...]], bool], function: Callable[[], object]) -> bool:
    """Run a function in a child that is killed at the first audit event that meets a condition; return whether it was killed.

    The condition gets an event and its arguments (see Python's audit events table). Events come before what they announce.
    """
    ended = False

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if not ended and condition(event, arguments):
            os.kill(os.getpid(), signal.SIGKILL)

    def watched() -> None:
        nonlocal ended
        sys.addaudithook(watch)
        function()
        ended = True  # later events are not the function's: coverage writes its files

    status = end(start(watched))
    assert status in (0, -signal.SIGKILL)
    return status != 0


def _writing(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and flags & os.O_ACCMODE != os.O_RDONLY


def unprivileged(function: Callable[[], object]) -> None:
    """Run a function in a child with the privileges of an ordinary user on this process's files, even if this process is root."""

    def child() -> None:
        drop_privileges()
        function()

    assert end(start(child)) == 0


def drop_privileges() -> None:
    """Drop all capabilities of this process, which should be a child: root is then only the owner of its files."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
