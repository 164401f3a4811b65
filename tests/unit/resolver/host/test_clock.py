from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.host import clock
from tests.support.osdf.file_server import FileServer

if TYPE_CHECKING:
    from tests.support.ep.execution_point import ExecutionPoint


@pytest.mark.parametrize(("days", "where"), [(3, "ahead of"), (-3, "behind")])
def test_a_clock_that_is_days_off_is_reported(ep: ExecutionPoint, web: FileServer, days: int, where: str) -> None:
    settings = ep.settings(origin=[web.url])
    (line,) = clock.problems(settings, time.time() + days * 86400)
    assert line.startswith(f"the clock of this host is 3.0 days {where} that of {web.url.split('/')[2]}")
    assert clock.problems(settings, time.time() + 3600) == []


def test_a_server_that_does_not_answer_says_nothing_about_the_clock(ep: ExecutionPoint) -> None:
    with FileServer(ep.origin) as web:
        settings = ep.settings(origin=[web.url])
    assert clock.problems(settings, 0) == []
