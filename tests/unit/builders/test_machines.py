from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.builders.machines import MachineMemory
from publisher.errors import StateDirectoryError

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_known_of_machines_outlives_a_run(tmp_path: Path) -> None:
    path = tmp_path / "machines.json"
    before = MachineMemory(path, lambda: 100.0)
    before.remember("ep1", "htc/a:1")
    before.remember("ep1", "htc/b:1")
    assert before.exclude("ep1", "other bytes") == ["htc/a:1", "htc/b:1"]
    before.mark_unsuitable("ep2")
    after = MachineMemory(path, lambda: 200.0)
    assert after.avoided() == {"ep1", "ep2"}
    assert (after.is_excluded("ep1"), after.is_excluded("ep2")) == (True, False)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_memory_is_said_and_not_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "machines.json"
    path.write_text("{")
    with pytest.raises(StateDirectoryError, match=r"machines.json is not valid JSON \(correct it, or delete it\)"):
        MachineMemory(path, lambda: 0.0)
