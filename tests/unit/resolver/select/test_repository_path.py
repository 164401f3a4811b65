from __future__ import annotations

import time
from typing import TYPE_CHECKING

from publisher.resolver.select import repository_path

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.support.ep.execution_point import ExecutionPoint


def test_a_path_of_the_repository_stays_as_it_is(ep: ExecutionPoint) -> None:
    settings = ep.settings()
    for path in (f"{ep.repository}/a/b:1", str(ep.repository), "/cvmfs/images.example.org/a//./b:1"):
        assert repository_path.name_in_repository(path, settings) == path


def test_a_path_that_leads_into_the_repository_is_one_of_it(ep: ExecutionPoint) -> None:
    (ep.repository / "a").mkdir(parents=True)
    (ep.root / "link").symlink_to(ep.repository)
    found = repository_path.name_in_repository(f"{ep.root}/link/a", ep.settings())
    assert found == f"{ep.repository}/a"


def test_a_path_whose_end_nobody_can_tell_in_time_is_elsewhere(
    ep: ExecutionPoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_path, "_TIMEOUT", 0.05)
    monkeypatch.setattr("os.path.realpath", lambda _: time.sleep(60))
    assert repository_path.name_in_repository(str(tmp_path), ep.settings()) is None
