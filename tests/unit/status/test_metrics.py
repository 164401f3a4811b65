from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from publisher.errors import LayerError, SpaceError
from publisher.publish.report import ImageResult, RunReport
from publisher.registry.client import RegistryUse
from publisher.status.answer import ImageState
from publisher.status.last_run import LastRun, load_last_run, make_last_run, save_last_run
from publisher.status.metrics import render
from publisher.status.overview import Overview

ROOT = Path(__file__).resolve().parents[3]
MONITORING = ROOT / "ci" / "monitoring"
OVERVIEW = Overview(
    repository="images.example.org",
    serial=7,
    signed=1000,
    expires=5000,
    started=900,
    finished=950,
    next_run=None,
    counts={ImageState.PUBLISHED: 12, ImageState.FAILING: 2},
    running=0,
    attention=(),
    problems=("the last sync ended early",),
)
USE = RegistryUse({"docker.io": 40}, {"docker.io": 76.0}, 1000)


def run_report(stopped: SpaceError | None = None) -> RunReport:
    report = RunReport(
        published_size=300, stored_size=200, phases={"plan": 2.5}, transactions=[3.0, 8.0], stopped=stopped, lags=[60, 120]
    )
    report.add("a/a:1", ImageResult.PUBLISHED, "new")
    report.fail("a/b:1", LayerError("no tar"))
    return report


def samples(text: bytes) -> dict[str, float]:
    lines = (line for line in text.decode().splitlines() if not line.startswith("#"))
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_metrics_say_what_is_published_and_what_the_last_run_did() -> None:
    found = samples(render(OVERVIEW, make_last_run(run_report(), USE, 950, LastRun()), keys_until=9000))
    expected = {
        'publisher_images{state="published"}': 12,
        'publisher_images{state="failing"}': 2,
        'publisher_images{state="blocked"}': 0,
        "publisher_manifest_expiry_seconds": 5000,
        "publisher_keys_expiry_seconds": 9000,
        "publisher_problems": 1,
        "publisher_last_success_seconds": 950,
        "publisher_last_run_exit_code": 1,
        'publisher_last_run_images{result="failed"}': 1,
        'publisher_phase_duration_seconds{phase="plan"}': 2.5,
        'publisher_bytes{direction="fetched"}': 1000,
        'publisher_bytes{direction="stored"}': 200,
        'publisher_bytes{direction="published"}': 300,
        "publisher_transaction_seconds_max": 8,
        'publisher_registry_requests{registry="docker.io"}': 40,
        'publisher_registry_pulls_remaining{registry="docker.io"}': 76,
    }
    assert {name: found[name] for name in expected} == expected


def test_the_lag_from_a_tag_to_its_publication_is_that_of_the_last_30_days(tmp_path: Path) -> None:
    before = LastRun(lags=[(1000, 40_000), (9_000_000, 600)])
    save_last_run(tmp_path, make_last_run(run_report(), USE, 9_000_500, before))
    found = samples(render(OVERVIEW, load_last_run(tmp_path)))
    assert found['publisher_lag_seconds{share="0.5"}'] == 120
    assert found['publisher_lag_seconds{share="0.9"}'] == 600
    assert not [name for name in samples(render(OVERVIEW, LastRun())) if "lag" in name]


def test_a_run_that_needs_its_operator_is_no_success(tmp_path: Path) -> None:
    assert load_last_run(tmp_path) == LastRun()
    save_last_run(tmp_path, make_last_run(run_report(), USE, 950, LastRun()))
    stopped = make_last_run(run_report(SpaceError("no space left")), USE, 2000, load_last_run(tmp_path))
    assert (stopped.finished, stopped.succeeded, stopped.exit_code) == (2000, 950, 4)
    (tmp_path / "last-run.json").write_text("{")
    assert load_last_run(tmp_path) == LastRun()


@pytest.mark.parametrize("name", ["alerts.yml", "dashboard.json"])
def test_rules_and_dashboard_use_metrics_that_exist(name: str) -> None:
    exported = {
        re.split(r"[{ ]", line)[0]
        for line in samples(render(OVERVIEW, make_last_run(run_report(), USE, 1, LastRun()), keys_until=1))
    }
    used = set(re.findall(r"\bpublisher_[a-z_]+", (MONITORING / name).read_text()))
    assert used
    assert used <= exported


def test_each_metric_and_alert_is_documented() -> None:
    text = (ROOT / "docs/monitoring.md").read_text()
    last = make_last_run(run_report(), USE, 1, LastRun())
    exported = {re.split(r"[{ ]", line)[0] for line in samples(render(OVERVIEW, last, keys_until=1))}
    alerts = set(re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text()))
    assert [name for name in sorted(exported | alerts) if name not in text] == []


def test_the_dashboard_is_json_with_a_target_in_each_panel() -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert all(panel["targets"] for panel in panels)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package prometheus has promtool")
def test_promtool_accepts_rules_and_metrics() -> None:
    subprocess.run(["promtool", "check", "rules", MONITORING / "alerts.yml"], check=True, capture_output=True)
    text = render(OVERVIEW, make_last_run(run_report(), USE, 1, LastRun()), keys_until=1)
    subprocess.run(["promtool", "check", "metrics"], input=text, check=True, capture_output=True)


def test_an_origin_that_is_behind_has_a_metric() -> None:
    report = run_report()
    report.behind = {"osdf:///second": "no space left"}
    found = samples(render(OVERVIEW, make_last_run(report, USE, 950, LastRun())))
    assert found['publisher_origin_behind{origin="osdf:///second"}'] == 1
