from __future__ import annotations

import gc

from publisher.targets.pelican.loop import OriginLoop
from tests.support.machine import child_process


class Session:
    """A transport that counts how often it is closed."""

    closed = 0

    async def close(self) -> None:
        self.closed += 1


async def three() -> int:
    return 3


def test_the_transport_is_closed_with_its_owner() -> None:
    session = Session()
    line = OriginLoop(session)  # type: ignore[arg-type]  # closing is all that is asked of it
    assert line.run(three()) == 3
    del line
    gc.collect()
    assert session.closed == 1


def test_a_forked_child_that_drops_its_copy_neither_closes_nor_waits() -> None:
    session = Session()
    lines = [OriginLoop(session)]  # type: ignore[arg-type]  # as above
    lines[0].run(three())

    def drop() -> None:
        lines.clear()
        gc.collect()
        assert session.closed == 0

    assert child_process.end(child_process.start(drop)) == 0
    assert lines[0].run(three()) == 3
