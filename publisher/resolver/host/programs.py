"""Programs that are run for what they say, each with a deadline: an Apptainer that hangs in a mount must not hold up a pilot."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from publisher.resolver.errors import DeadlineError, FetchError
from publisher.resolver.system import path_probe
from publisher.resolver.system.deadline_fork import ForkedCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_FOREIGN = ("APPTAINER", "SINGULARITY", "LD_")
"""Beginnings of variables by which a caller would change what is measured: containers' settings, and libraries."""
_AFTER_KILL = 2.0  # seconds; one that hangs in the kernel does not even die


def _hangs(path: str, until: float) -> bool:
    """Whether a program's file hangs: whoever starts it would wait for that."""

    def read() -> bytes:
        with open(path, "rb", buffering=0) as file:
            return file.read(1)

    try:
        ForkedCall(read).result(until)
    except DeadlineError:
        return True
    except FetchError:  # absent, or not to be read: that is found out when it is started
        pass
    return False


def run(argv: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Run a program to its end: its exit status (negative for a signal), and its output and errors together.

    It has a session of its own, no input, and none of the caller's container settings. The status is None where it cannot be
    started, or did not end within ``seconds`` and was killed with its children; the text then says so.
    """
    until = time.monotonic() + seconds
    path = argv[0] if "/" in argv[0] else path_probe.program(argv[:1], seconds) or argv[0]
    if _hangs(path, until):
        return None, f"{path} was not read within {seconds:g} s"
    import subprocess  # noqa: PLC0415 - no job waits for this

    environ = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
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
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_AFTER_KILL)
        return None, f"{argv[0]} did not end within {seconds:g} s"
    return process.returncode, said.decode("utf-8", "replace").strip()
