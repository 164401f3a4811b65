"""Runs a function with a disk that fails at any of its writes: a library that ``LD_PRELOAD`` puts below a Python process.

The process forks a child for each write, so that the library and what it runs are loaded once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import ROOT
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Callable

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
_SOURCE = Path(__file__).with_suffix(".c")
_MEMORY = Path("/dev/shm")  # noqa: S108 - hundreds of runs are quick there
_MOST = 2000
_DEADLINE = 900


def run_module(module: str, error: str) -> str:
    """Run a module of the tests below the library, with an error's name and a directory as arguments; return its output."""
    with tempfile.TemporaryDirectory(prefix="publisher-test-", dir=_MEMORY if _MEMORY.is_dir() else None) as where:
        return _run_in(Path(where), module, error)


def _run_in(where: Path, module: str, error: str) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT TESTED: disks that fail at each write; there is no C compiler (cc)")
    library = where / "failing_writes.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"], check=True, timeout=120)
    env = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", module, error, str(where)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=_DEADLINE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("NOT TESTED"):
        pytest.skip(done.stdout)
    return done.stdout


def fail_everywhere(
    error: str, root: Path, restore: Callable[[], None], work: Callable[[], None], check: Callable[[], None]
) -> int:
    """Run ``work`` once for each write below ``root``, which fails; return the number of writes.

    A full disk (ENOSPC) stays full until ``work`` ends; a damaged block (EIO) fails once.

    Args:
        error: the name of the error.
        root: the directory on the failing disk.
        restore: makes the state that ``work`` begins with.
        work: does the work in a child process; it catches and judges the failures that it expects.
        check: judges what is left, when the disk is well again.
    """

    def fails_at(number: int) -> bool:
        restore()
        met = root.parent / "met"
        met.unlink(missing_ok=True)

        def faulty() -> None:
            library.fail_writes(os.fsencode(root), number, ERRORS[error], error == "EIO")
            try:
                work()
            finally:
                if library.stop_failing():
                    met.touch()

        assert child_process.end(child_process.start(faulty)) == 0, f"{error} at write {number}"
        check()
        return met.exists()

    library = ctypes.CDLL(None)
    return _each_write(fails_at)


def fail_program_everywhere(  # noqa: PLR0917 - those of fail_everywhere and a program
    error: str, root: Path, program: str, restore: Callable[[], None], work: Callable[[], None], check: Callable[[], None]
) -> int:
    """Do what :func:`fail_everywhere` does with the writes of a program that ``work`` runs; return the number of writes."""
    found = shutil.which(program)
    assert found is not None
    wrapper = root.parent / "bin" / program
    wrapper.parent.mkdir(exist_ok=True)
    os.environ["PATH"] = f"{wrapper.parent}:{os.environ['PATH']}"

    def fails_at(number: int) -> bool:
        restore()
        met = root.parent / "met"
        met.unlink(missing_ok=True)
        values = {"ROOT": root, "NUMBER": number, "ERROR": ERRORS[error], "ONCE": int(error == "EIO"), "MET": met}
        told = " ".join(f"FAILING_WRITES_{name}={value}" for name, value in values.items())
        wrapper.write_text(f'#!/bin/sh\n{told} LD_PRELOAD={os.environ["LD_PRELOAD"]} exec {found} "$@"\n')
        wrapper.chmod(0o755)
        assert child_process.end(child_process.start(work)) == 0, f"{error} at write {number} of {program}"
        check()
        return met.exists()

    return _each_write(fails_at)


def _each_write(fails_at: Callable[[int], bool]) -> int:
    """Return the first number that no write has."""
    for number in range(_MOST):
        if not fails_at(number):
            return number
    raise AssertionError(f"more than {_MOST} writes")
