"""Runs of programs, with their duration and the peak memory of the program and its children."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publisher.errors import CommandError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_DEADLINE = 1800.0  # seconds


@dataclass(frozen=True)
class Run:
    """A finished program.

    Attributes:
        seconds: seconds from start to end.
        cpu: CPU seconds of the program and its children, user and system; a busy neighbour changes them less.
        memory: peak memory of its largest process, bytes.
        output: its standard output.
    """

    seconds: float
    cpu: float
    memory: int
    output: bytes

    @property
    def figures(self) -> dict[str, Any]:
        """Return the JSON object that the program printed."""
        figures: dict[str, Any] = json.loads(self.output)
        return figures


def run(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Run:
    """Run a program, after dirty pages of earlier runs are written to disk.

    Args:
        argv: program and arguments.
        env: variables added to the environment that all programs of the publisher get.
        log: file for its standard error.

    Raises:
        CommandError: the program failed or exceeded the deadline; the log says why.
    """
    os.sync()
    with log.open("wb") as errors:
        start = time.perf_counter()
        child = subprocess.Popen(
            argv,
            env=command.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        timer = threading.Timer(_DEADLINE, os.killpg, (child.pid, signal.SIGKILL))
        timer.daemon = True
        timer.start()
        try:
            output = b"" if child.stdout is None else child.stdout.read()
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        lines = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
        raise CommandError(f"{argv[0]} failed with status {child.returncode}: {' / '.join(lines)}", status=child.returncode)
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output)


def median(values: Sequence[float]) -> float:
    """Return the median of values."""
    return statistics.median(values)
