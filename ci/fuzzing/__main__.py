"""``ci/fuzz``: fuzzing of the parsers of untrusted data by libFuzzer, and by comparison with Go's reader.

Both start from the tests' archives and documents. A third part searches for layers that take much memory. Each target has a
process of its own, and as many run at a time as there are processors.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

_TARGETS = ("layers", "documents", "chunk_tables", "differences")
_OTHERS = {"go": ("ci.fuzzing.go_reader", "compare_readers"), "memory": ("ci.fuzzing.memory", "search_memory")}
"""What is not done by libFuzzer -> module and function, imported late: libFuzzer sees nothing of parsers imported before."""


def main() -> int:
    """Fuzz all targets; return 0 if none failed."""
    parser = argparse.ArgumentParser(prog="ci/fuzz", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=int, default=30, help="seconds for each target (default 30)")
    parser.add_argument("--target", choices=(*_TARGETS, *_OTHERS), help="fuzz only this target, in this process")
    parser.add_argument(
        "--found", type=Path, default=Path("build/fuzz"), help="directory for failing inputs (default build/fuzz)"
    )
    arguments = parser.parse_args()
    arguments.found.mkdir(parents=True, exist_ok=True)
    if arguments.target in _OTHERS:
        return int(not _run_other(arguments.target, arguments.seconds, arguments.found))
    if arguments.target is not None:
        from ci.fuzzing.targets import fuzz  # noqa: PLC0415 - it instruments its imports, and prints a line for each

        fuzz(arguments.target, arguments.seconds, arguments.found)
    one = partial(_run_process, seconds=arguments.seconds, found=arguments.found)
    with ThreadPoolExecutor(os.cpu_count()) as processes:
        return int(not all(list(processes.map(one, (*_TARGETS, *_OTHERS)))))


def _run_other(target: str, seconds: int, found: Path) -> bool:
    """Return whether a target that is not libFuzzer's passed."""
    module, function = _OTHERS[target]
    return bool(getattr(importlib.import_module(module), function)(seconds, found))


def _run_process(target: str, seconds: int, found: Path) -> bool:
    """Return whether a target passed in a process of its own; print what it did, or the output of libFuzzer if it failed."""
    argv = [sys.executable, "-m", "ci.fuzzing", str(seconds), "--target", target, "--found", str(found)]
    result = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    said = result.stdout.rstrip()
    if target in _TARGETS and result.returncode == 0:
        executed = re.search(r"number_of_executed_units: (\d+)", said)
        said = f"{target}: {executed[1] if executed else 'no'} inputs in {seconds} s"
    print(said, flush=True)
    return result.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
