"""What a run remembers, on a disk that fails at each write; see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from publisher.cli.state_directory import empty_scratch, load_outcomes, lock_state, save_outcomes
from publisher.errors import PublisherError
from publisher.state.outcomes import Outcomes
from publisher.state.snapshot import Snapshot
from tests.support.machine.failing_writes import fail_everywhere

OLD, NEW = Outcomes(finished=1_800_000_000), Outcomes(finished=1_800_000_600)


def main(error: str, where: Path) -> None:
    """Lock the state directory, make its directories and remember a run's outcomes, with an error at each write."""
    state = where / "disk" / "state"

    def restore() -> None:
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(parents=True)
        save_outcomes(state, OLD)

    def run() -> None:
        with lock_state(state):
            empty_scratch(state)
            save_outcomes(state, NEW)

    def work() -> None:
        said, hint = "", "no failure"
        try:
            run()
        except PublisherError as failure:
            said, hint = str(failure), failure.hint or ""
        assert hint, f"a message that does not say what to do: {said}"

    def check() -> None:
        nothing = Snapshot("images.example.org")
        assert load_outcomes(state, nothing) in (OLD, NEW)
        run()
        assert load_outcomes(state, nothing) == NEW
        assert list(state.glob(".*")) == [], "nothing temporary is left"

    sys.stdout.write(f"{fail_everywhere(error, state.parent, restore, work, check)} writes\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
