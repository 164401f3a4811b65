"""What a run remembers, on a disk that fails at each write; see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

from publisher.cli.state_directory import empty_scratch, load_outcomes, lock_state, save_outcomes
from publisher.state.outcomes import Outcomes
from publisher.state.snapshot import Snapshot
from tests.support.machine.failing_writes import FailingDisk, must_advise

OLD, NEW = Outcomes(finished=1_800_000_000), Outcomes(finished=1_800_000_600)


def main(disk: FailingDisk) -> None:
    """Lock the state directory, make its directories and remember a run's outcomes, with an error at each write."""
    state = disk.root / "state"

    def restore() -> None:
        disk.empty()
        state.mkdir()
        save_outcomes(state, OLD)

    def run() -> None:
        with lock_state(state):
            empty_scratch(state)
            save_outcomes(state, NEW)

    def check() -> None:
        nothing = Snapshot("images.example.org")
        assert load_outcomes(state, nothing) in (OLD, NEW)
        run()
        assert load_outcomes(state, nothing) == NEW
        assert list(state.glob(".*")) == [], "nothing temporary is left"

    disk.fail(lambda: must_advise(run), check, restore=restore)
