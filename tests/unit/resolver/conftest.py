from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.ep.execution_point import ExecutionPoint
from tests.support.ep.own_reads import own_reads
from tests.support.osdf.file_server import FileServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


__all__ = ["own_reads"]


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
