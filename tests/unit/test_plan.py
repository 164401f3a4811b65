from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.catalog import Catalog
from publisher.errors import NotFoundError, UnavailableError
from publisher.plan import Action, Answer, Item, make_plan
from publisher.resolver.manifest import BLOCKED, SUPERSEDED, Record, Version
from tests.support.published import AMD64, ARM64, answer, carried_out, digest, entry

if TYPE_CHECKING:
    from random import Random

    from publisher.errors import PublisherError
    from publisher.images import Entry
    from publisher.oci import Platform

EMPTY = Catalog("images.example.org")


def only(entry: Entry, said: Answer | Exception, catalog: Catalog, **more: object) -> Item:
    (item,) = make_plan([entry], {entry.name: said}, catalog, **more).items  # type: ignore[arg-type,dict-item]
    return item


def published(entry: Entry, said: Answer, catalog: Catalog = EMPTY, now: int = 1000) -> Catalog:
    return carried_out(make_plan([entry], {entry.name: said}, catalog), catalog, now)


def test_a_name_that_is_not_published_is_built() -> None:
    item = only(entry("htc/rocky:9"), answer("one"), EMPTY)
    assert item.action is Action.NEW
    assert [(target.manifest, target.before, target.published) for target in item.targets] == [
        (digest("one linux/amd64"), None, None)
    ]


def test_what_is_published_as_it_is_costs_nothing() -> None:
    rocky = entry("htc/rocky:9", [AMD64, ARM64])
    said = answer("one", [AMD64, ARM64])
    item = only(rocky, said, published(rocky, said))
    assert item.action is Action.UNCHANGED
    assert not item.targets


def test_a_moved_tag_says_from_where_to_where_and_supersedes() -> None:
    rocky = entry("htc/rocky:9")
    before = published(rocky, answer("one"))
    item = only(rocky, answer("two"), before)
    assert item.action is Action.CHANGED
    assert item.targets[0].before == digest("one linux/amd64")
    assert digest("one linux/amd64")[7:19] in item.reason
    assert digest("two linux/amd64")[7:19] in item.reason
    record = published(rocky, answer("two"), before, now=2000).records["htc/rocky:9"]
    assert [(version.manifest, version.state, version.since) for version in record.platforms["amd64"]] == [
        (digest("two linux/amd64"), "current", 2000),
        (digest("one linux/amd64"), SUPERSEDED, 2000),
    ]


def test_a_tag_that_moves_back_is_linked_and_not_built_again() -> None:
    rocky = entry("htc/rocky:9")
    catalog = published(rocky, answer("two"), published(rocky, answer("one")))
    item = only(rocky, answer("one"), catalog)
    assert item.targets[0].published is not None
    back = published(rocky, answer("one"), catalog, now=3000).records["htc/rocky:9"]
    assert [version.manifest for version in back.platforms["amd64"]] == [digest("one linux/amd64"), digest("two linux/amd64")]
    assert back.current("amd64") is not None


def test_only_the_platform_that_changed_is_built() -> None:
    rocky = entry("htc/rocky:9", [AMD64, ARM64])
    before = published(rocky, answer("one", [AMD64, ARM64]))
    said = answer("one", [AMD64, ARM64])
    mixed = Answer(digest("mixed"), {**said.manifests, ARM64: digest("new arm")}, said.offered)
    item = only(rocky, mixed, before)
    assert [(str(target.platform), target.manifest) for target in item.targets] == [("linux/arm64", digest("new arm"))]


def test_an_index_that_changed_for_other_architectures_only_is_no_change() -> None:
    rocky = entry("htc/rocky:9")
    before = published(rocky, answer("one"))
    moved = Answer(digest("another index"), answer("one").manifests)
    assert only(rocky, moved, before).action is Action.UNCHANGED


def test_one_content_under_two_names_is_built_once() -> None:
    before = published(entry("htc/rocky:9"), answer("one"))
    item = only(entry("htc/rocky:latest"), answer("one"), before)
    assert item.action is Action.NEW
    assert item.targets[0].published is not None


def test_another_form_is_made_when_the_list_asks_for_it() -> None:
    before = published(entry("htc/rocky:9", formats=["sif"]), answer("one"))
    item = only(entry("htc/rocky:9"), answer("one"), before)
    assert item.action is Action.CHANGED
    assert item.targets[0].published is None


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
    assert moved.records["htc/rocky:9"].source == "docker.io/htc/rocky:9"


def test_a_platform_that_the_image_lacks_fails_it_by_name() -> None:
    item = only(entry("htc/rocky:9", [AMD64, ARM64]), answer("one"), EMPTY)
    assert item.action is Action.FAILED
    assert "linux/arm64" in item.reason
    assert "linux/amd64" in item.reason


@pytest.mark.parametrize("error", [UnavailableError("no answer from hub.example.org"), NotFoundError("no such tag")])
def test_what_a_registry_does_not_say_changes_nothing_that_is_published(error: Exception) -> None:
    rocky = entry("htc/rocky:9")
    item = only(rocky, error, published(rocky, answer("one")))
    assert item.action is Action.FAILED
    assert item.reason.endswith("what is published stays")
    assert not item.targets


def test_a_blocked_image_is_not_built_again() -> None:
    rocky = entry("htc/rocky:9")
    version = Version(digest("one linux/amd64"), sandbox=None, sif=None, published=1, state=BLOCKED, reason="stolen data")
    record = Record("htc/rocky:9", "docker.io/htc/rocky:9", digest("one"), {"amd64": [version]})
    item = only(rocky, answer("two"), EMPTY.with_records({"htc/rocky:9": record}))
    assert (item.action, item.targets) == (Action.UNCHANGED, ())
    other = only(entry("htc/other:9"), answer("one"), EMPTY.with_records({"htc/rocky:9": record}))
    assert other.targets[0].published is None, "content that was taken down does not come back under another name"


def test_names_that_left_the_list_are_told_and_kept() -> None:
    before = published(entry("htc/rocky:9"), answer("one"))
    plan = make_plan([entry("htc/rocky:8")], {"htc/rocky:8": answer("eight")}, before)
    assert plan.delisted == ("htc/rocky:9",)
    some = make_plan([entry("htc/rocky:8")], {"htc/rocky:8": answer("eight")}, before, whole=False)
    assert some.delisted == ()


contents = st.sampled_from(["one", "two", "three"])
names = st.sampled_from(["a/a:1", "a/b:1", "b/a:2", "b/b:2"])
platforms = st.lists(st.sampled_from([AMD64, ARM64]), min_size=1, max_size=2, unique=True)
formats = st.sets(st.sampled_from(["sandbox", "sif"]), min_size=1)
lists = st.dictionaries(names, st.tuples(contents, platforms, formats), min_size=1)
Listed: TypeAlias = "dict[str, tuple[str, list[Platform], set[str]]]"


def listed_entries(listed: Listed, order: list[str]) -> list[Entry]:
    return [entry(name, listed[name][1], listed[name][2]) for name in order]


def answers_for(listed: Listed) -> dict[str, Answer | PublisherError]:
    return {name: answer(content, [AMD64, ARM64]) for name, (content, _, _) in listed.items()}


def planned(listed: Listed, catalog: Catalog, order: list[str] | None = None) -> Catalog:
    plan = make_plan(listed_entries(listed, order or sorted(listed)), answers_for(listed), catalog)
    return carried_out(plan, catalog, 7)


@given(lists, lists)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(first: Listed, second: Listed) -> None:
    catalog = EMPTY
    for listed in (first, second):
        catalog = planned(listed, catalog)
        assert not make_plan(listed_entries(listed, sorted(listed)), answers_for(listed), catalog).work
        for name, (content, wanted, _) in listed.items():
            for platform in wanted:
                current = catalog.records[name].current(platform.architecture)
                assert current is not None
                assert current.manifest == digest(f"{content} {platform}")


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
