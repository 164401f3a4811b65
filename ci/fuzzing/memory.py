"""The search for layers within the limits whose plan needs more memory than 300 MB."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, seed, settings, target

from tests.support.images.planning_memory import BAR, STACKS, Crowd, peak

if TYPE_CHECKING:
    from pathlib import Path


class _TooMuchError(Exception):
    """A stack that needs too much memory."""


def search_memory(seconds: float, found: Path) -> bool:
    """Search with Hypothesis, which changes what took most; return whether nothing was found.

    Args:
        seconds: how long, at least for one round of 20 stacks.
        found: directory for the description of a stack that takes too much.
    """
    end, worst, count = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:

        @seed(time.time_ns())
        @settings(max_examples=20, deadline=None, suppress_health_check=[*HealthCheck], database=None)
        @given(STACKS)
        def search(stack: list[list[Crowd]]) -> None:
            nonlocal worst, count
            needed = peak(stack)
            worst, count = max(worst, needed), count + 1
            target(float(needed))
            if needed >= BAR:
                raise _TooMuchError(f"{needed} bytes for {stack}")

        try:
            search()
        except _TooMuchError as error:
            (found / "memory-stack").write_text(str(error))
            print(f"memory: {error}")
            return False
    print(f"memory: {count} stacks in {seconds:g} s, the worst with {worst} of {BAR} bytes")
    return True
