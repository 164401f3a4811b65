from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher.cli.assembly import notices
from publisher.cli.assembly.notices import send_notices
from publisher.settings.sources import load_settings
from publisher.state.outcomes import Outcomes
from tests.support.page.world import PageWorld, record

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from publisher.settings.settings import PublisherSettings


def settings_of(where: Path, command: str) -> PublisherSettings:
    flags = {"state": str(where), "mail_command": command, "notice_owners": "htc=ann@example.org"}
    return load_settings(flags, {})


def saves(where: Path) -> str:
    script = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"
    return f'{sys.executable} -c "{script}" {where / "mail"}'


def test_an_owner_is_told_once_also_if_the_first_attempt_fails(tmp_path: Path) -> None:
    world = PageWorld()
    working, broken = settings_of(tmp_path, saves(tmp_path)), settings_of(tmp_path, "/does/not/exist -t")
    assert send_notices(working, world.content.known) == []
    assert not (tmp_path / "mail").exists(), "the first run notes the states"
    world.publish(changed={"htc/failing:1": record("htc/failing:1")})
    world.snapshot = replace(world.snapshot, outcomes=Outcomes())
    lines = send_notices(broken, world.content.known)
    assert "/does/not/exist cannot be started" in lines[0]
    assert lines[1] == "1 notice(s) wait for the next run"
    assert send_notices(working, world.content.known) == []
    assert b"htc/failing:1: published" in (tmp_path / "mail").read_bytes()
    (tmp_path / "mail").unlink()
    assert send_notices(working, world.content.known) == []
    assert not (tmp_path / "mail").exists()


def test_nothing_is_noted_where_nobody_is_to_be_told(tmp_path: Path) -> None:
    assert send_notices(load_settings({"state": str(tmp_path)}, {}), PageWorld().content.known) == []
    assert list(tmp_path.iterdir()) == []


def test_neither_a_failure_nor_a_bug_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = PageWorld().content.known
    (line,) = send_notices(settings_of(tmp_path / "missing", "true"), known)
    assert "notices.json cannot be written" in line

    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(notices, "find_changes", bug)
    (line,) = send_notices(settings_of(tmp_path, "true"), known)
    assert "because of a bug" in line
