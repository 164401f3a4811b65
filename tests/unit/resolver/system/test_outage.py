from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from publisher.resolver.system.outage import LASTS, Outage

if TYPE_CHECKING:
    from pathlib import Path


def test_an_outage_is_known_to_the_next_ones_until_it_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "failures" / "hangs")
    assert not Outage(path).lasts()
    Outage(path).begin()
    again = Outage(path)
    assert again.lasts()
    again.end()
    assert not Outage(path).lasts()


def test_when_it_is_old_one_looks_and_the_others_still_wait(tmp_path: Path) -> None:
    path = tmp_path / "hangs"
    for moved in (-LASTS - 1, 3600):
        path.touch()
        os.utime(path, (time.time() + moved,) * 2)
        assert not Outage(str(path)).lasts()
        assert Outage(str(path)).lasts()


def test_one_that_hangs_again_is_new(tmp_path: Path) -> None:
    path = tmp_path / "hangs"
    path.touch()
    os.utime(path, (time.time() - LASTS - 1,) * 2)
    Outage(str(path)).begin()
    assert Outage(str(path)).lasts()


def test_a_repository_that_never_hung_costs_no_removal(tmp_path: Path) -> None:
    path = tmp_path / "hangs"
    outage = Outage(str(path))
    assert not outage.lasts()
    path.touch()  # another job's, since
    outage.end()
    assert path.exists()


def test_without_a_place_for_it_nothing_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for outage in (Outage(None), Outage(str(tmp_path / "file" / "hangs"))):
        outage.begin()
        assert not outage.lasts()
        outage.end()
