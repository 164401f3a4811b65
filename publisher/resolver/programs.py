"""Programs that are run for what they say, each with a deadline: an Apptainer that hangs in a mount must not hold up a pilot."""

from __future__ import annotations

import contextlib
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_FOREIGN = ("APPTAINER", "SINGULARITY", "LD_")
"""Beginnings of variables by which a caller would change what is measured: containers' settings, and libraries."""
_AFTER_KILL = 2.0  # seconds; one that hangs in the kernel does not even die


def run(argv: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Run a program to its end: its exit status (negative for a signal), and its output and errors together.

    It has a session of its own, no input, and none of the caller's container settings. The status is None where it cannot be
    started, or did not end within ``seconds`` and was killed with its children; the text then says so.
    """
    import subprocess  # noqa: PLC0415 - no job waits for this

    environ = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    try:
        process = subprocess.Popen(
            argv,
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
