from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from publisher.cli.commands import watch
from publisher.cli.state_directory import lock_state
from publisher.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


class Stopped:
    """A runner that is stopped at once, and what it was made of."""

    made: dict[str, Any] = {}  # noqa: RUF012 - of the one that the command makes

    def __init__(self, _pending: object, load_list: Any, sync: Any, *, is_running: Any, pause: Any) -> None:
        Stopped.made = {"list": load_list(), "argv": sync.args[0], "running": is_running(), "pause": pause}

    def run_next(self) -> None:
        raise KeyboardInterrupt


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    (tmp_path / "images.yaml").write_text("version: 1\nimages: [quay.io/htc/rocky:9]\n")
    (tmp_path / "secrets").write_text("0123456789abcdef\n")
    names = ("images.yaml", "secrets", "state")
    values = [f"--{flag}={tmp_path / name}" for flag, name in zip(("images", "watch-secrets", "state"), names, strict=True)]
    return [*values, "--watch-listen=127.0.0.1:0", "--insecure-registry=a:5000", "--insecure-registry=b:5000"]


def test_the_syncs_get_the_flags_of_the_listener(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SyncRunner", Stopped)
    for locked in (False, True):
        if locked:
            with lock_state(tmp_path / "state"):
                done = CliRunner().invoke(watch.watch_command, flags)
        else:
            done = CliRunner().invoke(watch.watch_command, flags)
        assert "listening at http://127.0.0.1:" in done.output
        assert [entry.name for entry in Stopped.made["list"].entries] == ["htc/rocky:9"]
        assert Stopped.made["running"] is False
        argv = Stopped.made["argv"]
        assert argv[argv.index("publisher") :][:3] == ["publisher", "sync", "--json"]
        assert {f"--state={tmp_path / 'state'}", "--insecure-registry=a:5000,b:5000"} <= set(argv)


@pytest.mark.parametrize(
    ("wrong", "said"), [("--watch-listen=localhost", "not an address to listen at"), ("--watch-secrets=", "no secret")]
)
def test_nothing_listens_without_an_address_and_a_secret(flags: list[str], wrong: str, said: str) -> None:
    given = [flag for flag in flags if not flag.startswith(wrong.partition("=")[0])]
    done = CliRunner().invoke(watch.watch_command, [*given, *([wrong] if wrong.partition("=")[2] else [])])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
