"""What one owner's images may take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract.records import CURRENT, SUPERSEDED, Record, Version
from publisher.contract.reference import Reference
from publisher.images.reader import Entry
from publisher.oci import Platform
from publisher.plan import quota
from publisher.plan.quota import Quota, over_quota
from publisher.state.snapshot import Snapshot

if TYPE_CHECKING:
    from random import Random


def entry(tag: str, owner: str | None = "A", line: int = 0) -> Entry:
    reference = Reference("docker.io", "x/y", tag)
    return Entry(f"x/y:{tag}", reference, (Platform("linux", "amd64"),), frozenset({"sif"}), owner=owner, line=line)


ENTRIES = [entry(str(line), line=line) for line in (1, 2, 3)]
SIZES = {f"x/y:{line}": 10**9 for line in (1, 2, 3)}


def test_within_the_quota_there_is_no_problem() -> None:
    assert over_quota(ENTRIES, SIZES, {"A": Quota(images=3, size=3 * 10**9)}) == []


def test_too_many_images_are_reported_at_the_first_beyond_the_quota() -> None:
    assert over_quota(ENTRIES, SIZES, {"A": Quota(images=1)}) == [
        (2, "the images of 'A' number 3, but the quota is 1; remove some entries, or ask the operator for a larger quota")
    ]


def test_too_many_bytes_are_reported_at_the_first_image_beyond_the_quota() -> None:
    assert over_quota(ENTRIES, SIZES, {"A": Quota(size=2_500_000_000)}) == [
        (3, "the images of 'A' use 3 GB, but the quota is 2.5 GB; remove some entries, or ask the operator for a larger quota")
    ]


def test_the_default_is_for_each_owner_who_is_not_named() -> None:
    two_each = [entry("1", "A", 1), entry("2", "A", 2), entry("3", "B", 3), entry("4", "C", 4), entry("5", "C", 5)]
    allowed = {"default": Quota(images=1), "A": Quota(images=2)}
    assert [problem.line for problem in over_quota(two_each, {}, allowed)] == [5]


def test_entries_without_an_owner_are_taken_together_where_they_have_a_quota() -> None:
    nobodys = [entry(str(line), None, line) for line in (1, 2, 3)]
    assert over_quota(nobodys, {}, {"default": Quota(images=1)}) == []
    (problem,) = over_quota(nobodys, {}, {"nobody": Quota(images=2)})
    assert problem == (
        3,
        "the entries without an owner number 3, but the quota is 2; remove some entries, or ask the operator for a larger quota",
    )


def test_what_is_published_comes_before_what_is_new() -> None:
    (problem,) = over_quota(ENTRIES, {"x/y:2": 1, "x/y:3": 1}, {"A": Quota(images=2)})
    assert problem.line == 1


def version(manifest: str, size: int, state: str = CURRENT) -> Version:
    return Version(f"sha256:{manifest * 64}", sandbox=None, sif=None, published=0, unpacked_size=size, state=state)


def test_names_beyond_the_quota_are_refused_by_their_published_sizes() -> None:
    records = {
        "x/y:1": Record(
            "x/y:1", "docker.io/x/y:1", "sha256:" + "0" * 64, {"amd64": [version("a", 400), version("b", 10**6, SUPERSEDED)]}
        ),
        "x/y:2": Record(
            "x/y:2", "docker.io/x/y:2", "sha256:" + "0" * 64, {"amd64": [version("c", 300)], "arm64": [version("d", 300)]}
        ),
    }
    snapshot = Snapshot("images.example.org", records=records)
    assert quota.refusals(ENTRIES, snapshot, {"A": Quota(size=1000)}) == {}
    errors = quota.refusals(ENTRIES, snapshot, {"A": Quota(size=999)})
    assert {name: str(error) for name, error in errors.items()} == dict.fromkeys(
        ("x/y:2", "x/y:3"),
        "the images of 'A' use 1000 B, but the quota is 999 B (remove some entries, or ask the operator for a larger quota)",
    )


def test_quotas_are_read_as_people_write_them() -> None:
    given = {"default": {"images": 50, "size": "500 GB"}, "IceCube": {"size": "5 TB"}, "nobody": {"images": "7"}}
    assert quota.parse_quotas(given) == {
        "default": Quota(50, 500 * 10**9),
        "IceCube": Quota(None, 5 * 10**12),
        "nobody": Quota(7, None),
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "write owners with their quotas here"),
        ({1: {"images": 1}}, "write owners with their quotas here"),
        ({"A": 5}, "the quota of 'A' is not valid; write images:, size: or both"),
        ({"A": {}}, "the quota of 'A' is not valid"),
        ({"A": {"image": 5}}, "the quota of 'A' is not valid"),
        ({"A": {"images": 0}}, "the quota of 'A': 0 is not a valid whole number above 0"),
        ({"A": {"size": "big"}}, "the quota of 'A': 'big' is not a valid size"),
    ],
)
def test_an_invalid_quota_is_refused(given: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        quota.parse_quotas(given)


@given(st.lists(st.tuples(st.sampled_from(["A", "B", None]), st.integers(0, 50)), max_size=8), st.integers(1, 4), st.randoms())
def test_the_order_of_the_list_does_not_matter(owned: list[tuple[str | None, int]], most: int, random: Random) -> None:
    entries = [entry(str(line), owner, line) for line, (owner, _) in enumerate(owned, 1)]
    sizes = {f"x/y:{line}": size for line, (_, size) in enumerate(owned, 1) if size}
    allowed = {"A": Quota(images=most, size=60), "default": Quota(size=20), "nobody": Quota(images=most)}
    found = over_quota(entries, sizes, allowed)
    random.shuffle(entries)
    assert over_quota(entries, sizes, allowed) == found
