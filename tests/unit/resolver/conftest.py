from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.system import watched_call
from tests.support.ep.execution_point import ExecutionPoint
from tests.support.osdf.file_server import FileServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ep(tmp_path: Path) -> ExecutionPoint:
    return ExecutionPoint(tmp_path)


@pytest.fixture
def web(ep: ExecutionPoint) -> Iterator[FileServer]:
    """The origin of ``ep``, served over http."""
    with FileServer(ep.origin) as server:
        yield server


@pytest.fixture(autouse=True)
def system_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH of the system alone: each further directory costs a search for a program one more fork."""
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")


@pytest.fixture
def own_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reads that may hang are made by this process, as in the child of a hook; a fork of a test process takes milliseconds."""
    pipe = os.open(os.devnull, os.O_WRONLY)
    for name, value in {"process": os.getpid(), "pipe": pipe, "until": math.inf}.items():
        monkeypatch.setattr(watched_call._READS, name, value)
    yield
    os.close(pipe)
