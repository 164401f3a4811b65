"""The resolver's work in child processes, done by the process of the tests instead: a fork of that one takes up to 50 ms."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

import pytest

from publisher.contract.errors import ExpectedError
from publisher.resolver.system import deadline_fork, watched_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Optional, Union

    from publisher.resolver.errors import FetchError


class OwnCall:
    """What stands for a :class:`deadline_fork.ForkedCall`: the function has run when it is constructed, and cannot hang."""

    def __init__(self, work: Callable[[], bytes], keep: Optional[int] = None) -> None:
        del keep
        self._outcome: Union[bytes, FetchError, RuntimeError]
        try:
            self._outcome = work()
        except (OSError, ExpectedError) as error:
            self._outcome = deadline_fork.failure(error)
        except Exception as error:  # noqa: BLE001 - as a child does
            self._outcome = RuntimeError(f"a child process failed unexpectedly: {error!r}")
        self._ended = time.monotonic()

    def wait(self, until: float, other: Optional[int] = None) -> bool:
        del other
        return self._ended <= until

    def result(self, until: float) -> bytes:
        if self._ended > until:
            raise deadline_fork.late()
        if isinstance(self._outcome, bytes):
            return self._outcome
        raise self._outcome

    def kill(self) -> None:
        pass


@pytest.fixture
def own_reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the resolver forks, except in tests that are marked ``forked``: what hangs there hangs in a child.

    Reads that may hang are made as in the child of a hook.
    """
    if request.node.get_closest_marker("forked") is not None:
        yield
        return
    for name in ("__init__", "wait", "result", "kill"):
        monkeypatch.setattr(deadline_fork.ForkedCall, name, getattr(OwnCall, name))
    pipe = os.open(os.devnull, os.O_WRONLY)
    for name, value in {"process": os.getpid(), "pipe": pipe, "until": math.inf}.items():
        monkeypatch.setattr(watched_call._READS, name, value)
    yield
    os.close(pipe)
