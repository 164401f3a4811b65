"""What the page takes in with each sync: history, failures, details, differences, and the points of its plots."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.page.details import BuildChanges, ImageDetails
from publisher.page.learn import build_pairs, learn
from publisher.page.memory import FAILED, DayTotal, PageMemory
from publisher.page.rows import make_rows
from publisher.state.outcomes import Outcomes
from publisher.state.publication_log import BLOCK, CHANGED, NEW, LogChange, entry_name
from publisher.state.snapshot import Snapshot
from tests.support.page.world import NAME, NOW, PageWorld

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[PageMemory]:
    with PageMemory(tmp_path / "page.sqlite") as memory:
        yield memory


def sync(memory: PageMemory, world: PageWorld) -> None:
    content = world.content
    learn(memory, content.known, make_rows(content.known), content.sources, content.now)


def current(world: PageWorld) -> str:
    return world.snapshot.records["htc/rocky:9"].platforms["amd64"][0].digest


def test_the_publication_log_is_read_once_and_only_its_new_entries_after_that(memory: PageMemory) -> None:
    world = PageWorld()
    sync(memory, world)
    world.rebuild("htc/rocky:9")
    world.log.pop(entry_name(8))  # the first sync has read it
    sync(memory, world)
    sync(memory, world)
    assert [event.what for event in memory.events("htc/rocky:9")] == [CHANGED, NEW]


def test_the_reason_of_a_block_is_in_the_history(memory: PageMemory) -> None:
    world = PageWorld()
    world.publish(LogChange("htc/blocked:1", "amd64", current(world), BLOCK, "it has a stolen token"))
    sync(memory, world)
    assert memory.events("htc/blocked:1")[0].reason == "it has a stolen token"


@pytest.mark.parametrize("content", [b"{", None])
def test_a_log_with_a_gap_is_read_up_to_it(memory: PageMemory, content: bytes | None) -> None:
    world = PageWorld()
    world.rebuild("htc/rocky:9")
    world.log[entry_name(8)] = content  # type: ignore[assignment]  # None is a missing file
    sync(memory, world)
    assert [event.what for event in memory.events("htc/rocky:9")] == [CHANGED]


def test_an_image_begins_to_fail_once_for_each_time(memory: PageMemory) -> None:
    world = PageWorld()
    sync(memory, world)
    sync(memory, world)
    assert [(event.what, event.time, event.registry) for event in memory.events("htc/failing:1")] == [
        (FAILED, NOW - 7200, "docker.io")
    ]
    failing = world.snapshot.outcomes
    world.snapshot = replace(world.snapshot, outcomes=Outcomes(started=NOW))
    sync(memory, world)
    later = {"htc/failing:1": replace(failing.images["htc/failing:1"], since=NOW + 900)}
    world.snapshot = replace(world.snapshot, outcomes=replace(failing, images=later))
    sync(memory, world)
    assert [event.time for event in memory.events("htc/failing:1")] == [NOW + 900, NOW - 7200]


def test_details_come_from_the_config_of_a_run_and_otherwise_from_the_sandbox(memory: PageMemory) -> None:
    world = PageWorld()
    records = world.snapshot.records
    other = records["htc/expiring:1"].platforms["amd64"][0]
    world.configs[current(world)] = json.dumps({"config": {"User": "1000"}}).encode()
    world.configs["sha256:bad"] = b"{"
    world.read[f"{other.sandbox}/.singularity.d/labels.json"] = b'{"a": "b"}'
    sync(memory, world)
    assert memory.details(current(world)) == ImageDetails(user="1000")
    assert memory.details(other.digest) == ImageDetails(labels={"a": "b"})


def test_details_of_images_that_are_gone_are_forgotten(memory: PageMemory) -> None:
    world = PageWorld()
    world.configs[current(world)] = b"{}"
    sync(memory, world)
    world.snapshot = replace(world.snapshot, records={})
    world.configs.clear()
    sync(memory, world)
    assert memory.known_details() == set()


def test_the_last_two_builds_are_compared_once(memory: PageMemory) -> None:
    world = PageWorld()
    old = current(world)
    world.rebuild("htc/rocky:9")
    asked: list[tuple[str, str]] = []
    changes = BuildChanges(old, 1)
    world.differences = _Asked({(old, current(world)): changes}, asked)
    sync(memory, world)
    sync(memory, world)
    ((new, previous), *_) = build_pairs(world.snapshot, "htc/rocky:9")
    assert memory.build_changes(new.digest, previous.digest) == changes
    assert asked == [(old, current(world))]


class _Asked(dict[tuple[str, str], BuildChanges]):
    def __init__(self, values: dict[tuple[str, str], BuildChanges], asked: list[tuple[str, str]]) -> None:
        super().__init__(values)
        self._asked = asked

    def get(self, key: tuple[str, str]) -> BuildChanges | None:  # type: ignore[override]  # asked without a default
        self._asked.append(key)
        return super().get(key)


def test_a_name_without_two_builds_has_nothing_to_compare() -> None:
    assert build_pairs(PageWorld().snapshot, "htc/expiring:1") == []
    assert build_pairs(PageWorld().snapshot, "htc/never:1") == []


@pytest.mark.parametrize(
    ("created", "seconds"),
    [(None, 1200), ("2026-11-29T15:10:00Z", 300), ("2026-11-29T14:00:00Z", 1200), ("2099-01-01T00:00:00Z", 1200)],
)
def test_the_time_to_publication_runs_from_the_last_run_that_saw_the_old_image(
    memory: PageMemory, created: str | None, seconds: int
) -> None:
    """Not earlier than the image was built, if its config says when; a run began at 14:55, and it was published at 15:15."""
    world = PageWorld()
    sync(memory, world)
    world.now += 900
    world.rebuild("htc/rocky:9")
    if created is not None:
        world.configs[current(world)] = json.dumps({"created": created}).encode()
    sync(memory, world)
    assert memory.lags(0) == [(NOW + 900, seconds)]


def test_an_image_that_failed_before_took_longer(memory: PageMemory) -> None:
    world = PageWorld()
    sync(memory, world)
    world.now += 900
    change = LogChange("htc/failing:1", "amd64", current(world), NEW)
    record = world.snapshot.records["htc/rocky:9"]
    world.publish(
        change,
        changed={"htc/failing:1": type(record)("htc/failing:1", "docker.io/htc/failing:1", record.digest, record.platforms)},
    )
    sync(memory, world)
    assert memory.lags(0) == [(NOW + 900, 900 + 7200)]


def test_sandboxes_and_sifs_that_several_names_have_count_once(memory: PageMemory) -> None:
    world = PageWorld()
    record = world.snapshot.records["htc/expiring:1"]
    version = record.platforms["amd64"][0]
    assert version.sif is not None
    records = {name: type(record)(name, record.reference, record.digest, record.platforms) for name in ("a:1", "b:1")}
    world.snapshot = replace(world.snapshot, records=records)
    sync(memory, world)
    assert memory.totals() == [DayTotal(NOW // 86400, 2, version.unpacked_size, version.sif.size)]


def test_an_empty_publication_has_nothing_to_learn(memory: PageMemory) -> None:
    world = PageWorld.empty()
    assert world.snapshot == Snapshot(NAME)
    sync(memory, world)
    assert memory.events() == []
