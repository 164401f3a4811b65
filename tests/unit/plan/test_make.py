from __future__ import annotations

import dataclasses
from datetime import date
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract.records import BLOCKED, EXPIRING, SUPERSEDED, Record, Version
from publisher.errors import DeniedError, NotFoundError, UnavailableError
from publisher.images import sif_sources
from publisher.plan.make import make_plan
from publisher.plan.model import Action, PlanItem, ResolvedReference, UnlistedPattern
from publisher.state.snapshot import Snapshot
from tests.support.publisher.built_values import AMD64, ARM64, GRACE, answer, carried_out, digest, entry

if TYPE_CHECKING:
    from random import Random

    from publisher.errors import PublisherError
    from publisher.images.reader import Entry
    from publisher.oci import Platform

EMPTY = Snapshot("images.example.org")


def only(entry: Entry, said: ResolvedReference | Exception, snapshot: Snapshot, **more: object) -> PlanItem:
    (item,) = make_plan([entry], {entry.name: said}, snapshot, **more).items  # type: ignore[arg-type,dict-item]
    return item


def published(entry: Entry, said: ResolvedReference, snapshot: Snapshot = EMPTY, now: int = 1000) -> Snapshot:
    return carried_out(make_plan([entry], {entry.name: said}, snapshot), snapshot, now)


def test_a_name_that_is_not_published_is_built() -> None:
    item = only(entry("htc/rocky:9"), answer("one"), EMPTY)
    assert item.action is Action.NEW
    assert [(target.digest, target.previous, target.published) for target in item.targets] == [
        (digest("one linux/amd64"), None, None)
    ]


def test_an_image_that_is_current_has_no_targets() -> None:
    rocky = entry("htc/rocky:9", [AMD64, ARM64])
    said = answer("one", [AMD64, ARM64])
    item = only(rocky, said, published(rocky, said))
    assert item.action is Action.UNCHANGED
    assert not item.targets


def test_a_moved_tag_names_both_digests_and_supersedes_the_old_version() -> None:
    rocky = entry("htc/rocky:9")
    before = published(rocky, answer("one"))
    item = only(rocky, answer("two"), before)
    assert item.action is Action.CHANGED
    assert item.targets[0].previous == digest("one linux/amd64")
    assert digest("one linux/amd64")[7:19] in item.reason
    assert digest("two linux/amd64")[7:19] in item.reason
    record = published(rocky, answer("two"), before, now=2000).records["htc/rocky:9"]
    assert [(version.digest, version.state, version.since) for version in record.platforms["amd64"]] == [
        (digest("two linux/amd64"), "current", 2000),
        (digest("one linux/amd64"), SUPERSEDED, 2000),
    ]


def test_a_tag_that_moves_back_is_linked_and_not_built_again() -> None:
    rocky = entry("htc/rocky:9")
    snapshot = published(rocky, answer("two"), published(rocky, answer("one")))
    item = only(rocky, answer("one"), snapshot)
    assert item.targets[0].published is not None
    back = published(rocky, answer("one"), snapshot, now=3000).records["htc/rocky:9"]
    assert [version.digest for version in back.platforms["amd64"]] == [digest("one linux/amd64"), digest("two linux/amd64")]
    assert back.current("amd64") is not None


def test_only_the_platform_that_changed_is_built() -> None:
    rocky = entry("htc/rocky:9", [AMD64, ARM64])
    before = published(rocky, answer("one", [AMD64, ARM64]))
    said = answer("one", [AMD64, ARM64])
    mixed = ResolvedReference(digest("mixed"), {**said.digests, ARM64: digest("new arm")}, said.offered)
    item = only(rocky, mixed, before)
    assert [(str(target.platform), target.digest) for target in item.targets] == [("linux/arm64", digest("new arm"))]


def test_an_index_that_changed_for_other_architectures_only_is_no_change() -> None:
    rocky = entry("htc/rocky:9")
    before = published(rocky, answer("one"))
    moved = ResolvedReference(digest("another index"), answer("one").digests)
    assert only(rocky, moved, before).action is Action.UNCHANGED


def test_one_content_under_two_names_is_built_once() -> None:
    before = published(entry("htc/rocky:9"), answer("one"))
    item = only(entry("htc/rocky:latest"), answer("one"), before)
    assert item.action is Action.NEW
    assert item.targets[0].published is not None


def test_another_format_is_made_when_the_list_asks_for_it() -> None:
    before = published(entry("htc/rocky:9", formats=["sif"]), answer("one"))
    item = only(entry("htc/rocky:9"), answer("one"), before)
    assert item.action is Action.EXTENDED
    assert item.reason.endswith(" stays, as sandbox and SIF instead of SIF")
    assert item.targets[0].published is None


def test_an_unwanted_format_is_dropped_without_a_build() -> None:
    before = published(entry("htc/rocky:9"), answer("one"))
    for wanted in ("sandbox", "sif"):
        item = only(entry("htc/rocky:9", formats=[wanted]), answer("one"), before)
        assert item.action is Action.EXTENDED
        assert [target.published is not None for target in item.targets] == [True]


def test_an_unwanted_platform_expires_like_a_name_and_can_come_back() -> None:
    both, said = entry("htc/rocky:9", [AMD64, ARM64]), answer("one", [AMD64, ARM64])
    before = published(both, said)
    item = only(entry("htc/rocky:9"), said, before)
    assert (item.action, item.reason, item.targets, item.leaving) == (Action.CHANGED, "arm64 is no longer wanted", (), ("arm64",))
    after = published(entry("htc/rocky:9"), said, before, now=5)
    (version,) = after.records["htc/rocky:9"].platforms["arm64"]
    assert (version.state, version.until) == (EXPIRING, 5 + GRACE)
    assert only(entry("htc/rocky:9"), said, after).action is Action.UNCHANGED
    back = only(both, said, after)
    assert [(str(target.platform), target.published is not None) for target in back.targets] == [("linux/arm64", True)]


def test_a_platform_that_only_the_registry_drops_stays() -> None:
    both = entry("htc/rocky:9", [AMD64, ARM64])
    before = published(both, answer("one", [AMD64, ARM64]))
    item = only(both, answer("one"), before)
    assert (item.action, item.leaving) == (Action.FAILED, ())


def test_a_name_stays_with_its_repository_until_the_operator_says_otherwise() -> None:
    before = published(entry("hub.example.org/htc/rocky:9"), answer("one"))
    squatter = entry("docker.io/htc/rocky:9")
    refused = only(squatter, answer("evil"), before)
    assert refused.action is Action.FAILED
    assert refused.error is not None
    assert "hub.example.org/htc/rocky" in refused.error.reason
    allowed = only(squatter, answer("evil"), before, rebind=["htc/rocky:9"])
    assert allowed.action is Action.CHANGED
    same = only(squatter, answer("one"), before, rebind=["htc/rocky:9"])
    assert (same.action, same.targets) == (Action.CHANGED, ())
    moved = carried_out(make_plan([squatter], {"htc/rocky:9": answer("one")}, before, rebind=["htc/rocky:9"]), before, 5)
    assert moved.records["htc/rocky:9"].reference == "docker.io/htc/rocky:9"


def test_a_platform_that_the_image_lacks_is_named_in_the_failure() -> None:
    item = only(entry("htc/rocky:9", [AMD64, ARM64]), answer("one"), EMPTY)
    assert item.action is Action.FAILED
    assert "linux/arm64" in item.reason
    assert "linux/amd64" in item.reason


@pytest.mark.parametrize("error", [UnavailableError("no answer from hub.example.org"), DeniedError("it is private")])
def test_a_registry_without_an_answer_changes_nothing_that_is_published(error: Exception) -> None:
    rocky = entry("htc/rocky:9")
    item = only(rocky, error, published(rocky, answer("one")))
    assert item.action is Action.FAILED
    assert item.reason.endswith("the published version stays")
    assert not item.targets
    plan = make_plan([rocky], {rocky.name: error}, published(rocky, answer("one")))  # type: ignore[dict-item]
    assert plan.removals == ()


def test_a_blocked_image_is_not_built_again() -> None:
    rocky = entry("htc/rocky:9")
    version = Version(digest("one linux/amd64"), sandbox=None, sif=None, published=1, state=BLOCKED, reason="stolen data")
    record = Record("htc/rocky:9", "docker.io/htc/rocky:9", digest("one"), {"amd64": [version]})
    item = only(rocky, answer("two"), EMPTY.with_records({"htc/rocky:9": record}))
    assert (item.action, item.targets) == (Action.BLOCKED, ())
    other = only(entry("htc/other:9"), answer("one"), EMPTY.with_records({"htc/rocky:9": record}))
    assert (other.action, other.targets) == (Action.FAILED, ()), "what was taken down does not come back under another name"
    assert "stolen data" in other.reason


def many(count: int) -> tuple[list[Entry], dict[str, ResolvedReference | PublisherError], Snapshot]:
    entries = [entry(f"a/image:{number}") for number in range(count)]
    answers: dict[str, ResolvedReference | PublisherError] = {one.name: answer(one.name) for one in entries}
    return entries, answers, carried_out(make_plan(entries, answers, EMPTY), EMPTY, 1)


def test_delisted_names_expire_and_their_data_stays() -> None:
    entries, answers, snapshot = many(20)
    plan = make_plan(entries[1:], answers, snapshot)
    assert [(removal.name, removal.reason) for removal in plan.leaving] == [("a/image:0", "no longer in the list")]
    after = carried_out(plan, snapshot, 5)
    (version,) = after.records["a/image:0"].platforms["amd64"]
    assert (version.state, version.since, version.until) == (EXPIRING, 5, 5 + GRACE)
    again = make_plan(entries[1:], answers, after)
    assert (again.work, again.removals) == ((), ())


def test_only_the_whole_list_says_that_a_name_is_missing_in_it() -> None:
    entries, answers, snapshot = many(20)
    assert make_plan(entries[1:], answers, snapshot, whole=False).removals == ()


def test_names_gone_from_their_registry_expire_like_delisted_ones() -> None:
    entries, answers, snapshot = many(20)
    answers["a/image:3"] = NotFoundError("hub.example.org has no a/image:3")
    plan = make_plan(entries, answers, snapshot)
    assert plan.items[3].action is Action.GONE
    assert [removal.name for removal in plan.leaving] == ["a/image:3"]
    assert "hub.example.org has no a/image:3" in plan.leaving[0].reason
    again = make_plan(entries, answers, carried_out(plan, snapshot, 5))
    assert again.removals == ()
    assert again.items[3].action is Action.GONE


def test_an_image_that_was_never_there_is_the_lists_mistake() -> None:
    assert only(entry("a/typo:1"), NotFoundError("no such image"), EMPTY).action is Action.FAILED


@pytest.mark.parametrize("back", ["listed", "there"])
def test_a_name_that_comes_back_in_time_is_current_again_without_a_build(back: str) -> None:
    entries, answers, snapshot = many(20)
    left = carried_out(
        make_plan(entries[1:], answers, snapshot)
        if back == "listed"
        else make_plan(entries, {**answers, "a/image:0": NotFoundError("gone")}, snapshot),
        snapshot,
        5,
    )
    plan = make_plan(entries, answers, left)
    (item,) = plan.work
    assert [target.published is not None for target in item.targets] == [True]
    after = carried_out(plan, left, 9)
    (version,) = after.records["a/image:0"].platforms["amd64"]
    assert (version.state, version.until) == ("current", None)
    assert not make_plan(entries, answers, after).work


@pytest.mark.parametrize(("leaving", "refused"), [(1, False), (3, False), (4, True), (20, True)])
def test_more_than_a_twentieth_and_three_leave_only_with_the_operators_word(leaving: int, refused: bool) -> None:
    entries, answers, snapshot = many(20)
    rest = [*entries[leaving:], entry("a/other:1")]
    answers["a/other:1"] = answer("other")
    plan = make_plan(rest, answers, snapshot)
    assert len(plan.removals) == leaving
    assert (plan.withheld is not None, plan.leaving == ()) == (refused, refused)
    assert [item.entry.name for item in plan.work] == ["a/other:1"], "the rest of the list is not held up"
    assert "--allow-mass-removal" in (plan.withheld or "--allow-mass-removal")
    assert len(make_plan(rest, answers, snapshot, allow_mass_removal=True).leaving) == leaving


def test_gone_and_delisted_count_together() -> None:
    entries, answers, snapshot = many(20)
    answers["a/image:3"] = NotFoundError("gone")
    assert make_plan(entries[3:], answers, snapshot).withheld is not None


def test_a_short_list_may_lose_a_few_names_but_not_all() -> None:
    entries, answers, snapshot = many(3)
    assert make_plan(entries[:1], answers, snapshot).withheld is None
    assert "all of them" in (make_plan([entry("a/other:1")], answers | {"a/other:1": answer("other")}, snapshot).withheld or "")


def test_a_twentieth_of_a_long_list_may_leave() -> None:
    entries, answers, snapshot = many(100)
    assert make_plan(entries[5:], answers, snapshot).withheld is None
    assert make_plan(entries[6:], answers, snapshot).withheld is not None


def test_a_wildcard_whose_tags_nobody_knows_keeps_what_it_covers() -> None:
    entries, answers, snapshot = many(20)
    down = UnlistedPattern("a/image:*", lambda name: name.startswith("a/"), UnavailableError("hub.example.org does not answer"))
    plan = make_plan(entries[10:], answers, snapshot, unlisted=[down])
    assert plan.removals == ()
    assert plan.kept[0] == ("a/image:0", "hub.example.org does not answer")
    assert len(plan.kept) == 10


contents = st.sampled_from(["one", "two", "three"])
names = st.sampled_from(["a/a:1", "a/b:1", "b/a:2", "b/b:2"])
platforms = st.lists(st.sampled_from([AMD64, ARM64]), min_size=1, max_size=2, unique=True)
formats = st.sets(st.sampled_from(["sandbox", "sif"]), min_size=1)
lists = st.dictionaries(names, st.tuples(contents, platforms, formats), min_size=1)
Listed: TypeAlias = "dict[str, tuple[str, list[Platform], set[str]]]"


def listed_entries(listed: Listed, order: list[str]) -> list[Entry]:
    return [entry(name, listed[name][1], listed[name][2]) for name in order]


def answers_for(listed: Listed) -> dict[str, ResolvedReference | PublisherError]:
    return {name: answer(content, [AMD64, ARM64]) for name, (content, _, _) in listed.items()}


def planned(listed: Listed, snapshot: Snapshot, order: list[str] | None = None) -> Snapshot:
    entries = listed_entries(listed, order or sorted(listed))
    plan = make_plan(entries, answers_for(listed), snapshot, allow_mass_removal=True)
    return carried_out(plan, snapshot, 7)


@pytest.mark.untraced
@given(lists, lists)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(first: Listed, second: Listed) -> None:
    snapshot = EMPTY
    for listed in (first, second):
        snapshot = planned(listed, snapshot)
        again = make_plan(listed_entries(listed, sorted(listed)), answers_for(listed), snapshot)
        assert (again.work, again.removals) == ((), ())
        for name, (content, wanted, _) in listed.items():
            for platform in wanted:
                current = snapshot.records[name].current(platform.architecture)
                assert current is not None
                assert current.digest == digest(f"{content} {platform}")


@pytest.mark.untraced
@given(lists, st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(listed: Listed, random: Random) -> None:
    order = sorted(listed)
    random.shuffle(order)
    one, other = planned(listed, EMPTY), planned(listed, EMPTY, order)
    assert {name: record.to_json() for name, record in one.records.items()} == {
        name: record.to_json() for name, record in other.records.items()
    }


def test_plans_are_values() -> None:
    plan = make_plan([entry("htc/rocky:9")], {"htc/rocky:9": answer("one")}, EMPTY)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.items = ()  # type: ignore[misc]


def test_what_expires_soon_is_announced() -> None:
    today = date(2027, 1, 1)
    soon, far = entry("a/soon:1", expires=date(2027, 1, 20)), entry("a/far:1", expires=date(2027, 6, 1))
    answers = {one.name: answer(one.name) for one in (soon, far)}
    assert make_plan([soon, far], answers, EMPTY, today=today).notes == (
        "a/soon:1 is published until 2027-01-20, as its entry says",
    )
    assert make_plan([soon, far], answers, EMPTY).notes == ()


@pytest.mark.parametrize(
    ("before", "after", "is_bound"),
    [
        ("osdf:///lab/x/solver-1.sif", "osdf:///lab/x/solver-2.sif", False),
        ("osdf:///lab/x/solver-1.sif", "osdf:///lab/y/solver-1.sif", True),
        ("https://example.org:8443/x.sif", "https://example.org:8444/x.sif", True),
        ("oras://ghcr.io/lab/solver:1", "oras://ghcr.io/lab/solver:2", False),
        ("oras://ghcr.io/lab/solver:1", "ghcr.io/lab/solver:1", True),
    ],
)
def test_a_name_is_bound_to_the_directory_or_repository_of_its_sif(before: str, after: str, is_bound: bool) -> None:
    old, new = (dataclasses.replace(entry("lab/solver:1"), reference=sif_sources.parse(text)) for text in (before, after))
    item = only(new, answer("two"), published(old, answer("one")))
    assert (item.action is Action.FAILED) is is_bound
    assert ("the name is bound to" in item.reason) is is_bound


def test_a_published_sif_is_not_taken_for_one_of_another_architecture() -> None:
    """Nothing but the SIF itself says what it is for, and a published one is not read again."""
    amd64, arm64 = entry("lab/a:1", [AMD64]), entry("lab/b:1", [ARM64])
    before = published(amd64, ResolvedReference(digest("sif"), {AMD64: digest("sif")}, configs={AMD64: digest("sif")}))
    (version,) = before.records["lab/a:1"].platforms["amd64"]
    version.notes["source"] = "SIF for amd64"
    item = only(arm64, ResolvedReference(digest("sif"), {ARM64: digest("sif")}, configs={ARM64: digest("sif")}), before)
    assert (item.action, item.reason) == (Action.FAILED, "it is listed for linux/arm64, and is a SIF for amd64")
