from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.select import facts
from tests.support.ep.execution_point import NOW

if TYPE_CHECKING:
    from pathlib import Path


def values(found: facts.HostFacts) -> list[bool | None]:
    return [getattr(found, name) for name in facts.NAMES]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "facts.json"
    facts.write(str(path), {"sif": True, "cvmfs": False}, NOW, NOW - 7)
    found = facts.read(str(path), NOW + 60)
    assert (found.sif, found.cvmfs, found.userns, found.overlay, found.measured) == (True, False, None, None, NOW)
    assert json.loads(path.read_text()) == {
        "schema": 1,
        "measured": NOW,
        "sif": True,
        "userns": None,
        "overlay": None,
        "cvmfs": False,
        "started": NOW - 7,
    }
    assert found.started == NOW - 7


@pytest.mark.parametrize("later", [facts.LIFETIME + 1, -3600])
def test_what_was_measured_at_another_time_counts_for_nothing(tmp_path: Path, later: int) -> None:
    path = str(tmp_path / "facts.json")
    facts.write(path, {"sif": False}, NOW)
    assert values(facts.read(path, NOW + later)) == [None] * 4
    assert facts.read(path, NOW + facts.LIFETIME).sif is False


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "1",
        "null",
        '{"schema": 2, "measured": 1750000000, "sif": true}',
        '{"schema": 1, "sif": true}',
        '{"schema": 1, "measured": "today", "sif": true}',
        '{"schema": 1, "measured": 1750000000, "sif": "yes", "cvmfs": 1}',
        "[" * 4000,
    ],
)
def test_anything_else_is_no_fact(tmp_path: Path, content: str) -> None:
    path = tmp_path / "facts.json"
    path.write_text(content)
    assert values(facts.read(str(path), NOW)) == [None] * 4


def test_an_absent_file_is_no_fact(tmp_path: Path) -> None:
    assert values(facts.read(str(tmp_path / "absent"), NOW)) == values(facts.read(None, NOW)) == [None] * 4
