"""When caches are asked, and that it fails nothing."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from publisher.cli.assembly import caches, run
from publisher.cli.commands.operate import block_command
from publisher.errors import OriginError
from publisher.publish.report import ImageResult, RunReport
from publisher.settings.sources import load_settings
from publisher.state.snapshot import Snapshot
from publisher.usage.store import FILE_NAME, UsageStore
from tests.support.page.world import NAME, NOW, record, version
from tests.support.publisher.built_values import answer, entry
from tests.support.publisher.prepublished import NAME as REPOSITORY
from tests.support.publisher.prepublished import Place

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.settings.settings import PublisherSettings

FLAGS = {"repository": "/r", "origin": "osdf:///ospool/images", "caches": "b.example:8443,a.example"}


class Recorded:
    """A client of caches that answers what a test says."""

    asked: list[tuple[str, list[str], list[str]]] = []  # noqa: RUF012 - of all clients of a test

    def __init__(self, *_: object) -> None: ...

    async def prestage(self, hosts: list[str], paths: list[str]) -> list[str]:
        Recorded.asked.append(("prestage", hosts, paths))
        return ["a.example has no API for this"]

    async def evict(self, hosts: list[str], paths: list[str]) -> list[str]:
        Recorded.asked.append(("evict", hosts, paths))
        raise OriginError("no token")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(caches, "CacheClient", Recorded)
    Recorded.asked = []
    return Recorded.asked


def settings_of(state: Path, **more: str) -> PublisherSettings:
    return load_settings({**FLAGS, "state": str(state), **more}, {})


def test_paths_are_those_in_the_federation_and_failures_are_lines(tmp_path: Path, asked: list[Any]) -> None:
    settings = settings_of(tmp_path)
    assert caches.prestage(settings, ["sif/ab/1.sif"]) == ["a.example has no API for this"]
    assert caches.evict(settings, ["sif/ab/1.sif"]) == ["the caches could not be asked to evict: no token"]
    hosts, paths = ["a.example", "b.example:8443"], ["/ospool/images/sif/ab/1.sif"]
    assert asked == [("prestage", hosts, paths), ("evict", hosts, paths)]


@pytest.mark.parametrize("flags", [{"caches": ""}, {"origin": "/o"}])
def test_nobody_is_asked_without_caches_or_a_federation(tmp_path: Path, asked: list[Any], flags: dict[str, str]) -> None:
    given = {name: value for name, value in {**FLAGS, **flags}.items() if value}
    assert caches.prestage(load_settings({**given, "state": str(tmp_path)}, {}), ["sif/ab/1.sif"]) == []
    assert caches.prestage(settings_of(tmp_path), []) == []
    assert asked == []


def test_after_a_run_the_published_sifs_of_used_names_are_asked_for(tmp_path: Path, asked: list[Any]) -> None:
    report, snapshot = RunReport(), Snapshot(NAME, 7, NOW, NOW, {"a:1": record("a:1", version("a", published=NOW))})
    report.add("a:1", ImageResult.PUBLISHED, "new")
    report.add("b:1", ImageResult.FAILED, "no tar")
    settings = settings_of(tmp_path)
    assert run.warm_caches(settings, report, snapshot, NOW) == [], "no use is known"
    job = {"GlobalJobId": "ap#1", "CompletionDate": NOW, "ChirpImageName": "a:1"}
    with UsageStore(tmp_path / FILE_NAME) as store:
        store.read_history(json.dumps([job]).encode(), NOW, lambda _: True)
    assert run.warm_caches(settings, report, snapshot, NOW, now=NOW) == ["a.example has no API for this"]
    sif = snapshot.records["a:1"].platforms["amd64"][0].sif
    assert sif is not None
    assert asked[0][2] == [f"/ospool/images/{sif.path}"]
    (tmp_path / FILE_NAME).write_text("x" * 5000)
    (line,) = run.warm_caches(settings, report, snapshot, NOW)
    assert "usage.sqlite cannot be used" in line
    assert run.warm_caches(load_settings({"state": str(tmp_path)}, {}), report, snapshot, NOW) == []


def test_a_block_asks_the_caches_to_evict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    place.now = int(time.time()) - 60
    place.publish(place.publication(), (entry("htc/rocky:9"), answer("one")))
    evicted: list[str] = []

    def evict(_settings: object, sifs: list[str]) -> list[str]:
        evicted.extend(sifs)
        return ["a.example does not evict"]

    monkeypatch.setattr(caches, "evict", evict)
    flags = [f"--{name}={tmp_path / path}" for name, path in (("repository", "cvmfs"), ("origin", "osdf"), ("key", "key"))]
    flags += [f"--state={tmp_path / 'state'}", "--repository-name", REPOSITORY, "--caches=a.example", "--page=none", "--json"]
    done = CliRunner().invoke(block_command, ["htc/rocky:9", "--reason=stolen data", *flags], catch_exceptions=False)
    assert json.loads(done.stdout) == {"blocked": ["htc/rocky:9"], "notes": ["a.example does not evict"]}
    assert [path.rpartition(".")[2] for path in evicted] == ["sif"]
