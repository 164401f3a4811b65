"""What the page says of each image in one line."""

from __future__ import annotations

import pytest

from publisher.contract.records import Record
from publisher.page.rows import Row, make_rows, patterns_json
from publisher.status.answer import Known
from publisher.usage.records import NameUsage, UseCount
from tests.support.page.world import NOW, STATES, TODAY, PageWorld, digest, version

WORLD = PageWorld()
ROWS = {row.name: row for row in make_rows(WORLD.content.known)}


@pytest.mark.parametrize(("name", "state"), [item for item in STATES.items() if item[1] not in {"building", "not listed"}])
def test_each_image_has_its_state_and_a_reason(name: str, state: str) -> None:
    assert ROWS[name].state == state
    assert ROWS[name].reason


def test_a_published_image_has_digest_sizes_platforms_and_what_the_list_says() -> None:
    row = ROWS["htc/rocky:9"]
    assert (row.digest, row.source, row.registry) == (
        digest("tag rocky"),
        "hub.opensciencegrid.org/htc/rocky:9",
        "hub.opensciencegrid.org",
    )
    assert row.platforms == ("amd64", "arm64")
    assert (row.changed, row.usable, row.sandbox, row.sandbox // 3) == (NOW - 3600, True, row.sandbox, row.sif)
    assert (row.owner, row.project, row.group) == ("htc", "OSPool", "Base images")


def test_a_failing_image_says_how_often_and_when_it_is_tried_again() -> None:
    row = ROWS["htc/failing:1"]
    assert (row.tries, row.checked, row.next_try, row.usable) == (4, NOW - 900, NOW + 2700, False)


def test_an_image_of_a_pattern_has_the_reference_of_its_tag() -> None:
    assert (ROWS["htc/tags:1.9"].source, ROWS["htc/tags:1.9"].state) == ("docker.io/htc/tags:1.9", "waiting")


def test_an_expiring_image_says_until_when() -> None:
    assert (ROWS["htc/expiring:1"].until, ROWS["htc/expiring:1"].usable) == (NOW + 13 * 86400, True)


def test_a_blocked_image_cannot_be_used_and_keeps_its_reason() -> None:
    row = ROWS["htc/blocked:1"]
    assert (row.usable, row.platforms, row.changed) == (False, (), 0)
    assert "stolen token" in row.reason


def test_unknown_times_are_null_in_json() -> None:
    assert Row("a:1", "waiting", "why").to_json()["since"] is None
    assert ROWS["htc/rocky:9"].to_json()["changed"] == NOW - 3600


def test_patterns_tell_of_names_that_they_do_not_select() -> None:
    (pattern,) = patterns_json(WORLD.content.known)
    assert pattern == {
        "pattern": "docker.io/htc/tags:1.*",
        "prefix": "htc/tags:",
        "keep": 2,
        "newest": ["htc/tags:1.9", "htc/tags:1.8"],
    }
    assert patterns_json(Known(WORLD.snapshot, None, TODAY)) == []
    assert {row.owner for row in make_rows(Known(WORLD.snapshot, None, TODAY))} == {""}


def test_the_use_of_an_image_is_rounded_so_that_its_page_changes_rarely() -> None:
    world = PageWorld()
    day = NOW // 86400 * 86400

    def row(jobs: int, last: int) -> Row:
        usage = {"htc/rocky:9": NameUsage(UseCount(jobs, 7, last))}
        return next(row for row in make_rows(world.content.known, usage) if row.name == "htc/rocky:9")

    assert row(12_345, NOW) == row(12_999, day)
    assert (row(12_345, NOW).jobs, row(12_345, NOW).hosts, row(12_345, NOW).used) == (12_000, 7, day)
    assert next(row for row in make_rows(world.content.known) if row.name == "htc/rocky:9").to_json()["used"] is None


def test_builds_for_some_hosts_only_are_variants_of_an_architecture() -> None:
    world = PageWorld()
    builds = {key: (version(key),) for key in ("amd64", "amd64,nvidia-gpu", "arm64")}
    world.snapshot = world.snapshot.with_records({"a/b:1": Record("a/b:1", "docker.io/a/b:1", digest("tag"), builds)})
    row = next(row for row in make_rows(world.content.known) if row.name == "a/b:1")
    assert (row.platforms, row.variants) == (("amd64", "arm64"), ("amd64,nvidia-gpu",))
    assert row.to_json()["variants"] == ["amd64,nvidia-gpu"]
