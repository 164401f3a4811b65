from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from publisher.resolver.system.outage import OUTAGE_DURATION, Outage

if TYPE_CHECKING:
    from pathlib import Path


def test_an_outage_is_active_for_other_jobs_until_it_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "failures" / "hangs")
    assert not Outage(path).is_active()
    Outage(path).begin()
    again = Outage(path)
    assert again.is_active()
    again.end()
    assert not Outage(path).is_active()


def test_one_job_probes_an_expired_outage_while_it_stays_active_for_others(tmp_path: Path) -> None:
    path = tmp_path / "hangs"
    for moved in (-OUTAGE_DURATION - 1, 3600):
        path.touch()
        os.utime(path, (time.time() + moved,) * 2)
        assert not Outage(str(path)).is_active()
        assert Outage(str(path)).is_active()


def test_an_outage_that_begins_again_is_active_again(tmp_path: Path) -> None:
    path = tmp_path / "hangs"
    path.touch()
    os.utime(path, (time.time() - OUTAGE_DURATION - 1,) * 2)
    Outage(str(path)).begin()
    assert Outage(str(path)).is_active()


def test_a_repository_that_never_hung_costs_no_removal(tmp_path: Path) -> None:
    path = tmp_path / "hangs"
    outage = Outage(str(path))
    assert not outage.is_active()
    path.touch()  # another job's, since
    outage.end()
    assert path.exists()


def test_without_a_file_no_outage_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for outage in (Outage(None), Outage(str(tmp_path / "file" / "hangs"))):
        outage.begin()
        assert not outage.is_active()
        outage.end()
