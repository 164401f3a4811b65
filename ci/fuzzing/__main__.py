"""``ci/fuzz``: the readers of strangers' bytes, fed with what libFuzzer makes of the tests' own archives and documents."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

_TARGETS = ("layers", "documents")


def main() -> int:
    """0: nothing was found."""
    parser = argparse.ArgumentParser(prog="ci/fuzz", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=int, default=30, help="for each target (default 30)")
    parser.add_argument("--target", choices=_TARGETS, help="this one alone, in this very process")
    parser.add_argument("--found", type=Path, default=Path("build/fuzz"), help="directory for what is found (build/fuzz)")
    given = parser.parse_args()
    given.found.mkdir(parents=True, exist_ok=True)
    if given.target is not None:
        from ci.fuzzing.targets import fuzz  # noqa: PLC0415 - it instruments what it imports, and says so at length

        fuzz(given.target, given.seconds, given.found)
    held = [_in_a_process(target, given.seconds, given.found) for target in _TARGETS]
    return int(not all(held))


def _in_a_process(target: str, seconds: int, found: Path) -> bool:
    """Whether a target held; what libFuzzer has to say is shown where it did not."""
    argv = [sys.executable, "-m", "ci.fuzzing", str(seconds), "--target", target, "--found", str(found)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    tried = re.search(r"number_of_executed_units: (\d+)", done.stdout)
    print(f"{target}: {tried[1] if tried else 'no'} inputs in {seconds} s" if done.returncode == 0 else done.stdout)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
