from __future__ import annotations

import subprocess

import pytest

from publisher.resolver.errors import FetchError
from publisher.resolver.system.reaper import guarded


def test_what_is_over_is_killed_by_nobody() -> None:
    """Its number may be another's by then."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        with guarded() as watch:
            watch(process.pid)
        assert process.poll() is None
        process.kill()


def test_without_a_shell_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.resolver.system.reaper._SHELL", "/nowhere/sh")
    with pytest.raises(FetchError, match="/nowhere/sh does not start: No such file"), guarded():
        pass
