"""When a program starts that works for the resolver; test_image_pull.py shows how it ends."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.contract.reaper import Reaper
from publisher.resolver.system import child_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


def test_a_program_starts_only_once_its_session_is_guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it outlives a process that is killed between the two."""
    guard, before = Reaper.guard, []

    @contextlib.contextmanager
    def watched(self: Reaper, leader: int) -> Iterator[None]:
        before.append((_program(leader), (tmp_path / "made").exists()))
        with guard(self, leader):
            yield

    monkeypatch.setattr(Reaper, "guard", watched)
    assert child_program.run(["touch", "made"], str(tmp_path), time.monotonic() + 60, {}) == ""
    assert before == [("sh", False)]
    assert (tmp_path / "made").exists()


def _program(process: int) -> str:
    """Return what a child runs: the kernel renames it a moment after its ``exec`` is seen by its parent."""
    own, comm = Path("/proc/self/comm").read_text(), Path(f"/proc/{process}/comm")
    until = time.monotonic() + 60
    while comm.read_text() == own and time.monotonic() < until:
        time.sleep(0.001)
    return comm.read_text().strip()
