"""A disk that fails at its writes, one after the other: a library that ``LD_PRELOAD`` puts below the programs that write to it.

A scenario is a function of :mod:`tests.support` that gets a :class:`FailingDisk`; :func:`run_scenario` runs it in a process with
the library, which forks a child for each write that fails.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.contract.errors import ExpectedError
from publisher.errors import PublisherError
from tests.support.checkout import ROOT
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Callable

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
_SOURCE = Path(__file__).with_suffix(".c")
_CALLS = _SOURCE.with_name("failing_calls.c")
_MEMORY = Path("/dev/shm")  # noqa: S108 - hundreds of runs are quick there
_DEADLINE = 900
_SPREAD = 8  # writes that fail besides the last one of each kind
_PATH_MAX = 4096
_CONTROL = f"<qqii{_PATH_MAX}s{_PATH_MAX}s"  # struct control of failing_writes.c
_NEVER = 1 << 62
_NUMBERS = re.compile(r"[0-9a-f]*[0-9][0-9a-f]*|\btmp\w+")


def run_scenario(module: str, error: str) -> list[int]:
    """Run ``main`` of a module of the tests with a failing disk; return the number of writes that failed, for each program."""
    with tempfile.TemporaryDirectory(prefix="publisher-test-", dir=_MEMORY if _MEMORY.is_dir() else None) as where:
        return _run_in(Path(where), module, error)


def _run_in(where: Path, module: str, error: str) -> list[int]:
    where.chmod(0o711)  # other accounts pass through it
    library, control = where / "failing_writes.so", where / "control"
    for name, content in _compiled().items():
        (where / name).write_bytes(content)
        (where / name).chmod(0o755)
    control.write_bytes(bytes(struct.calcsize(_CONTROL)))
    control.chmod(0o666)
    env = {**os.environ, "LD_PRELOAD": str(library), "FAILING_WRITES": str(control), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", __name__, module, error, str(where)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=_DEADLINE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("NOT TESTED"):
        pytest.skip(done.stdout)
    return [int(number) for number in done.stdout.split()]


@cache
def _compiled() -> dict[str, bytes]:
    """Return the library and the program that make writes fail, by their names."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT TESTED: disks that fail at each write; there is no C compiler (cc)")
    with tempfile.TemporaryDirectory() as made:
        library, program = Path(made, "failing_writes.so"), Path(made, "failing_calls")
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True, timeout=120)
        subprocess.run([compiler, "-O1", "-o", program, _CALLS], check=True, timeout=120)
        return {path.name: path.read_bytes() for path in (library, program)}


def must_advise(work: Callable[[], object]) -> None:
    """Do some work; if it fails as may be expected, its message must say what to do."""
    try:
        work()
    except (PublisherError, ExpectedError) as failure:
        if not failure.hint:
            raise AssertionError(f"a message that does not say what to do: {failure}") from failure


class FailingDisk:
    """A directory on a disk that fails.

    A full disk (ENOSPC) stays full until the work ends; a damaged block (EIO) fails once.

    Args:
        error: the name of the error.
        where: a directory for the disk and what belongs to the scenario.

    Attributes:
        where: that directory.
        root: the directory on the disk; what is next to it never fails.
    """

    def __init__(self, error: str, where: Path) -> None:
        self.where = where
        self.root = where / "disk"
        self.root.mkdir()
        self._error = error
        self._trace = where / "trace"
        with (where / "control").open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), 0)

    @property
    def library(self) -> dict[str, str]:
        """The variables that make a program's writes to the disk fail as well."""
        return {name: os.environ[name] for name in ("LD_PRELOAD", "FAILING_WRITES")}

    def empty(self) -> None:
        """Delete all that is on the disk."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()

    def fail(
        self,
        work: Callable[[], object],
        check: Callable[[], object],
        *,
        restore: Callable[[], object] | None = None,
        here: bool = True,
    ) -> None:
        """Run ``work`` once for each write to the disk that fails; print how many did.

        The last write of each kind fails, such as of renames to shards, and some more; all of them with OSPOOL_EVERY_POINT.

        Args:
            work: does the work in a child process; it catches and judges the failures that it expects.
            check: judges what is left, when the disk is well again.
            restore: makes the state that ``work`` begins with; None for an empty disk.
            here: whether writes of this process itself fail as well, besides those of the programs with the library.
        """
        restore = restore or self.empty
        restore()
        kinds = self._run(work, _NEVER, here=here)
        check()
        failed = 0
        last = {kind: number for number, kind in enumerate(kinds)}.values()
        for number in sorted({*last, *child_process.sample(len(kinds), _SPREAD)}):
            restore()
            failed += len(self._run(work, number, here=here)) > number
            check()
        sys.stdout.write(f"{failed}\n")

    def _run(self, work: Callable[[], object], number: int, *, here: bool) -> list[str]:
        """Run ``work`` in a child with a write that fails; return the kind of each write."""
        self._trace.write_bytes(b"")
        self._trace.chmod(0o666)
        root, trace = os.fsencode(self.root), os.fsencode(self._trace)
        ready = struct.pack(_CONTROL, number, 0, ERRORS[self._error], self._error == "EIO", root, trace)
        nothing = bytes(len(ready))

        def faulty() -> None:
            if not here:
                ctypes.CDLL(None).leave()
            self._control[:] = ready
            try:
                work()
            finally:
                self._control[:] = nothing

        status = child_process.end(child_process.start(faulty))
        self._control[:] = nothing
        assert status == 0, f"{self._error} at write {number}: {self._trace.read_text().splitlines()[number : number + 1]}"
        return [_NUMBERS.sub("*", line) for line in self._trace.read_text(errors="replace").splitlines()]

    def wrap(self, program: str, *, calls: bool = False) -> None:
        """Make writes fail of a program that ``work`` runs by its name.

        Args:
            program: its name.
            calls: whether it makes system calls without the C library, as Go's programs do; only root can run it then.
        """
        found = shutil.which(program)
        assert found is not None
        wrapper = self.where / "bin" / program
        wrapper.parent.mkdir(exist_ok=True)
        os.environ["PATH"] = f"{wrapper.parent}:{os.environ['PATH']}"
        told = " ".join(f"{name}={value}" for name, value in self.library.items() if not calls or name != "LD_PRELOAD")
        wrapper.write_text(f'#!/bin/sh\n{told} exec {self.where / "failing_calls" if calls else ""} {found} "$@"\n')
        wrapper.chmod(0o755)


if __name__ == "__main__":
    # under its own name: a scenario imports this module again
    own = importlib.import_module("tests.support.machine.failing_writes")
    importlib.import_module(sys.argv[1]).main(own.FailingDisk(sys.argv[2], Path(sys.argv[3])))
