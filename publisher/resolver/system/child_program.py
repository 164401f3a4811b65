"""Run a program that works for this process: it ends by a deadline, and with this process even if that is killed."""

from __future__ import annotations

import os
import subprocess
import time

from publisher.contract.reaper import Reaper, held, kill_session
from publisher.resolver.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_KEPT_VARIABLES = ("PATH", "LANG", "USER")
_OUTPUT_BYTES = 500
_CHECK_INTERVAL = 1.0  # seconds


def run(
    argv: Sequence[str],
    directory: str,
    until: float,
    environ: Mapping[str, str],
    check: Callable[[], None] | None = None,
) -> str:
    """Run a program in a session of its own, and kill what is left of that.

    Args:
        argv: the program and its arguments.
        directory: where it runs; its output goes into the file ``output`` there.
        until: reading of the monotonic clock at which it must have ended.
        environ: variables that it gets, besides PATH, LANG and USER.
        check: called every second while it runs; may raise to end it.

    Returns:
        Why it failed, with the end of its output; empty if it did not fail.

    Raises:
        TimeoutError: it did not end in time.
        OSError: its output cannot be written.
    """
    output = os.path.join(directory, "output")
    kept = {name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES}
    log.debug("running %s", " ".join(argv))
    with Reaper() as reaper, open(output, "wb") as file:
        try:
            process = subprocess.Popen(
                held(argv),
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                cwd=directory,
                env={**kept, **environ},
                start_new_session=True,
            )
        except OSError as error:
            return f"{argv[0]}: {error.strerror}"
        with reaper.release(process):
            try:
                status = _wait(process, until, check)
            except TimeoutError:
                raise TimeoutError(f"{os.path.basename(argv[0])} did not end in time") from None
            finally:
                kill_session(process.pid)
                process.wait()
    return "" if status == 0 else f"{os.path.basename(argv[0])} ended with status {status}: {_last_output(output)}"


def _wait(process: subprocess.Popen[bytes], until: float, check: Callable[[], None] | None) -> int:
    """Return the status of the program once it has ended."""
    while True:
        left = max(0.0, until - time.monotonic())
        try:
            return process.wait(left if check is None else min(left, _CHECK_INTERVAL))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= until:
                raise TimeoutError from None
            if check is not None:
                check()


def _last_output(path: str) -> str:
    with open(path, "rb") as file:
        text = file.read(1 << 20).decode("utf-8", "replace")
    return " ".join(text.split())[-_OUTPUT_BYTES:]
