from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from publisher.resolver.cache import pins
from publisher.resolver.cli import main

if TYPE_CHECKING:
    import pytest

    from tests.support.ep.execution_point import ExecutionPoint

ONE = "a" * 64


def run(ep: ExecutionPoint, monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    monkeypatch.setenv(pins.STARTER_VARIABLE, str(os.getpid()))
    monkeypatch.setattr(sys, "argv", ["image-resolver", "job-exit", "--repository", str(ep.repository), *flags])
    return main()


def test_a_job_that_is_over_gives_back_what_it_was_given(ep: ExecutionPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in (ep.root / "cache", ep.root / "store"):
        pins.pin(str(root), ONE, pins.Starter(os.getpid()))
        pins.pin(str(root), ONE, pins.Starter(os.getppid()))
    assert run(ep, monkeypatch, f"--cache={ep.root}/cache", f"--store={ep.root}/store") == 0
    assert [pins.count_pins(str(ep.root / name)) for name in ("cache", "store")] == [{ONE: 1}, {ONE: 1}]


def test_whatever_goes_wrong_costs_the_job_nothing(
    ep: ExecutionPoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ep, monkeypatch, "--form=square") == 0
    assert "square" in capsys.readouterr().err
    (ep.root / "pins").touch()
    assert run(ep, monkeypatch, f"--cache={ep.root}") == 0
    assert "Not a directory" in capsys.readouterr().err
    monkeypatch.setattr(pins, "release", None)
    assert run(ep, monkeypatch, f"--cache={ep.root}") == 0
    assert "TypeError" in capsys.readouterr().err
