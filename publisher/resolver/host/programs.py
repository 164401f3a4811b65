"""Run a program for its output, with a timeout: an Apptainer that hangs in a mount must not hang the pilot."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from publisher.resolver.errors import DeadlineError, FetchError
from publisher.resolver.system import log, path_probe
from publisher.resolver.system.deadline_fork import ForkedCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_REMOVED_PREFIXES = ("APPTAINER", "SINGULARITY", "LD_")
"""Prefixes of environment variables that would distort a measurement: settings of containers, and of the dynamic linker."""
_KILL_TIMEOUT = 2.0  # seconds; a process that hangs in the kernel does not even end after SIGKILL


def run(argv: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Run a program and return its exit status, which is negative for a signal, and its output and errors together.

    The program gets its own session, no input, and none of the caller's container settings. The status is None if the program
    cannot be started, or if it was killed with its children after ``seconds``; the text then gives the reason.
    """
    until = time.monotonic() + seconds
    path = argv[0] if "/" in argv[0] else path_probe.find_program(argv[:1], seconds) or argv[0]
    if _hangs(path, until):
        return None, f"{path} could not be read within {seconds:g} s"
    import subprocess  # noqa: PLC0415 - no job waits for this

    log.debug("running %s", " ".join([path, *argv[1:]]))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_REMOVED_PREFIXES)}
    try:
        process = subprocess.Popen(
            [path, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environ,
        )
    except OSError as error:
        return None, f"cannot run {argv[0]}: {error.strerror}"
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_KILL_TIMEOUT)
        return None, f"{argv[0]} did not end within {seconds:g} s"
    return process.returncode, output.decode("utf-8", "replace").strip()


def _hangs(path: str, until: float) -> bool:
    """Return whether reading a program's file hangs: starting it would hang as well."""

    def read() -> bytes:
        with open(path, "rb", buffering=0) as file:
            return file.read(1)

    try:
        ForkedCall(read).result(until)
    except DeadlineError:
        return True
    except FetchError:  # absent or unreadable: starting it gives the reason
        pass
    return False
