"""``publisher metrics``, its listener, and the file that a sync writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from publisher.cli.main import publisher
from publisher.cli.setup import metrics
from publisher.errors import PublishedManifestError, UsageError
from publisher.publish.report import RunReport
from publisher.registry.client import RegistryUse
from publisher.settings.sources import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.settings.settings import PublisherSettings

USE = RegistryUse({}, {}, 0)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublisherSettings:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(publisher, ["init"], catch_exceptions=False).exit_code == 0
    (tmp_path / "state").mkdir()
    return load_settings({"metrics_file": "publisher.prom"}, {})


@pytest.mark.usefixtures("settings")
def test_the_command_prints_metrics_before_the_first_run_too() -> None:
    printed = CliRunner().invoke(publisher, ["metrics"], catch_exceptions=False).stdout
    assert 'publisher_images{state="waiting"} 1.0' in printed
    assert "publisher_last_run_seconds 0.0" in printed
    with pytest.raises(UsageError, match="is not an address to listen at"):
        CliRunner().invoke(publisher, ["metrics", "--listen", "here"], catch_exceptions=False)


def test_a_run_writes_its_metrics(settings: PublisherSettings, tmp_path: Path) -> None:
    metrics.record_run(settings, RunReport(phases={"plan": 1.5}), USE)
    assert 'publisher_phase_duration_seconds{phase="plan"} 1.5' in (tmp_path / "publisher.prom").read_text()


def test_metrics_that_cannot_be_written_do_not_fail_the_run(
    settings: PublisherSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "publisher.prom").mkdir()
    metrics.record_run(settings, RunReport(), USE)
    assert "the metrics of this run are not written" in caplog.text


def test_the_listener_serves_metrics_and_nothing_else() -> None:
    answers: list[str] = []

    def start_response(status: str, *_: Any) -> Any:
        answers.append(status)

    def fail() -> bytes:
        raise PublishedManifestError("it is damaged")

    def ask(text: Any, path: str) -> bytes:
        return b"".join(metrics.application(text)({"PATH_INFO": path}, start_response))

    assert ask(lambda: b"publisher_x 1", "/metrics") == b"publisher_x 1"
    assert ask(fail, "/") == b"see /metrics\n"
    assert ask(fail, "/metrics") == b"it is damaged\n"
    assert answers == ["200 OK", "404 Not Found", "503 Service Unavailable"]
