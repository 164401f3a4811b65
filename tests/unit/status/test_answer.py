"""Is an image there, since when, and if not, why? One answer for each of the states."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pytest

from publisher.errors import BuildError, NotFoundError
from publisher.images import reader
from publisher.maintain import block
from publisher.plan.make import make_plan
from publisher.publish.remember import remember
from publisher.publish.report import ImageResult, RunReport
from publisher.state import transitions
from publisher.state.outcomes import FAILING, GONE, LastOutcome, Outcomes
from publisher.status.answer import ImageAnswer, ImageState, Known, answer
from tests.support.publisher.built_values import answer as resolved
from tests.support.publisher.built_values import carried_out, entry
from tests.support.publisher.recorded_sync import EMPTY

if TYPE_CHECKING:
    from publisher.state.snapshot import Snapshot

NOW = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
TODAY = date(2026, 11, 1)
LIST = """\
version: 1
groups:
  - title: All
    images:
      - image: docker.io/htc/rocky:9
      - image: docker.io/htc/new:1
      - image: docker.io/htc/old:1
        expires: 2026-10-31
      - image: docker.io/htc/last:1
        expires: 2026-11-01
      - image: docker.io/htc/tags
        tags: ["1.*"]
        keep: 2
"""
OTHER = reader.parse(LIST.encode(), "images.yaml")
PATTERN = str(OTHER.patterns[0])


def published(*names: str) -> Snapshot:
    plan = make_plan([entry(name) for name in names], {name: resolved(name) for name in names}, EMPTY)
    return carried_out(plan, EMPTY, NOW)


def with_outcomes(snapshot: Snapshot, **images: LastOutcome) -> Snapshot:
    named = {name.replace("_", "/") + ":1": last for name, last in images.items()}
    return replace(snapshot, outcomes=Outcomes(named, {PATTERN: ("htc/tags:1.9", "htc/tags:1.8")}, NOW, NOW))


def ask(snapshot: Snapshot, *keys: str, running: dict[str, str] | None = None) -> ImageAnswer:
    return answer(Known(snapshot, OTHER, TODAY, running or {}), keys)


def test_a_published_image_is_usable_since_its_publication() -> None:
    found = ask(published("htc/rocky:9"), "htc/rocky:9")
    assert (found.state, found.is_usable, found.since) == (ImageState.PUBLISHED, True, NOW)
    assert found.reference == "docker.io/htc/rocky:9"


def test_an_image_is_found_by_every_key_that_the_manifest_has() -> None:
    snapshot = published("htc/rocky:9")
    for key in (*snapshot.records["htc/rocky:9"].aliases(), "docker://docker.io/htc/rocky:9"):
        assert ask(snapshot, key).name == "htc/rocky:9"
    assert ask(EMPTY, "docker://docker.io/htc/new:1").name == "htc/new:1"


def test_a_listed_image_waits_for_the_next_sync() -> None:
    found = ask(EMPTY, "htc/new:1")
    assert (found.state, found.is_usable) == (ImageState.WAITING, False)
    assert "the next sync publishes it" in found.reason


def test_an_image_that_the_last_run_did_not_reach_says_why() -> None:
    report = RunReport()
    report.add("htc/new:1", ImageResult.SKIPPED, "the run stopped before it: the disk is full")
    plan = make_plan([entry("htc/new:1")], {"htc/new:1": resolved("x")}, EMPTY)
    known = remember(Outcomes(), plan, report, started=NOW, now=NOW)
    found = ask(replace(EMPTY, outcomes=known), "htc/new:1")
    assert (found.state, "the disk is full" in found.reason) == (ImageState.WAITING, True)


def test_an_image_of_the_run_under_way_is_building() -> None:
    found = ask(EMPTY, "htc/new:1", running={"htc/new:1": "squash"})
    assert (found.state, "squash" in found.reason) == (ImageState.BUILDING, True)
    both = ask(published("htc/new:1"), "htc/new:1", running={"htc/new:1": "fetch"})
    assert (both.state, both.is_usable, "the published version stays" in both.reason) == (ImageState.BUILDING, True, True)


def test_a_failing_image_says_why_since_when_and_how_often() -> None:
    last = LastOutcome(FAILING, "it has no shell", NOW - 50, tries=3)
    found = ask(with_outcomes(EMPTY, htc_new=last), "htc/new:1")
    assert (found.state, found.is_usable, found.since) == (ImageState.FAILING, False, NOW - 50)
    assert found.reason == "it has no shell (tried 3 times)"
    stays = ask(with_outcomes(published("htc/new:1"), htc_new=last), "htc/new:1")
    assert (stays.state, stays.is_usable) == (ImageState.FAILING, True)
    assert stays.reason.startswith("the published version stays, but its update fails: it has no shell")


def test_an_image_that_its_registry_no_longer_has_is_gone_or_leaves() -> None:
    last = LastOutcome(GONE, "no such tag", NOW)
    assert ask(with_outcomes(EMPTY, htc_new=last), "htc/new:1").state is ImageState.GONE
    snapshot = published("htc/new:1")
    leaving = snapshot.with_records({"htc/new:1": transitions.expire(snapshot.records["htc/new:1"], NOW, NOW + 10)})
    found = ask(with_outcomes(leaving, htc_new=last), "htc/new:1")
    assert (found.state, found.is_usable, "no such tag" in found.reason) == (ImageState.EXPIRING, True, True)
    assert "no longer in the list" in ask(leaving, "htc/new:1").reason


def test_an_entry_has_expired_the_day_after_its_last() -> None:
    found = ask(EMPTY, "htc/old:1")
    assert (found.state, "2026-10-31" in found.reason) == (ImageState.EXPIRED, True)
    assert ask(EMPTY, "htc/last:1").state is ImageState.WAITING
    assert ask(published("htc/old:1"), "htc/old:1").state is ImageState.PUBLISHED, "until a sync has marked it"


def test_a_blocked_image_says_the_operators_reason() -> None:
    snapshot = published("htc/rocky:9")
    plan = block.plan_block(snapshot, "htc/rocky:9", NOW, "it steals tokens", history=False)
    found = ask(snapshot.with_records(plan.changed), "htc/rocky:9")
    assert (found.state, found.is_usable) == (ImageState.BLOCKED, False)
    assert "it steals tokens" in found.reason


def test_a_tag_that_the_pattern_does_not_keep_is_dropped_and_the_kept_ones_are_named() -> None:
    found = ask(with_outcomes(EMPTY), "htc/tags:1.7")
    assert found.state is ImageState.DROPPED
    assert "the 2 newest tags" in found.reason
    assert "htc/tags:1.9, htc/tags:1.8" in found.reason
    assert ask(with_outcomes(EMPTY), "htc/tags:1.9").state is ImageState.WAITING
    assert "the next sync asks the registry" in ask(EMPTY, "htc/tags:1.7").reason


def test_a_name_that_nobody_listed_leads_to_similar_ones() -> None:
    assert ask(EMPTY, "htc/Rocky:9").reason.endswith("did you mean htc/rocky:9?")
    assert "did you mean htc/new:1?" in ask(EMPTY, "htc/new:2").reason
    far = ask(EMPTY, "somebody/else:7")
    assert (far.state, "docs/images.md" in far.reason) == (ImageState.UNLISTED, True)


def test_without_a_list_what_is_published_is_known_all_the_same() -> None:
    known = Known(published("htc/rocky:9"), None, TODAY)
    assert answer(known, ["htc/rocky:9"]).state is ImageState.PUBLISHED
    assert answer(known, ["htc/new:1"]).state is ImageState.UNLISTED


def test_names_are_those_listed_published_failing_or_stood_for() -> None:
    snapshot = with_outcomes(published("htc/rocky:9", "a/only:1"), b_failing=LastOutcome(FAILING, "x", NOW))
    names = Known(snapshot, OTHER, TODAY).names
    assert names == [
        "a/only:1", "b/failing:1", "htc/last:1", "htc/new:1", "htc/old:1", "htc/rocky:9", "htc/tags:1.8", "htc/tags:1.9",
    ]  # fmt: skip


@pytest.mark.parametrize("error", [BuildError("no shell"), NotFoundError("no such tag")])
def test_each_answer_is_a_sentence_without_internal_words(error: Exception) -> None:
    assert "Error" not in ask(with_outcomes(EMPTY, htc_new=LastOutcome(FAILING, str(error), NOW)), "htc/new:1").reason
