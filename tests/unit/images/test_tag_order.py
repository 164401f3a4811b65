"""The orders of tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.images import tag_order


def ordered(tags: list[str], by: tag_order.Order = "version") -> list[str]:
    return sorted(tags, key=tag_order.key(by))


@pytest.mark.parametrize(
    "oldest_first",
    [
        ["1.9", "1.10", "2.0"],
        ["2023.4", "2024.2"],
        ["latest", "1.0"],
        [
            "1.2-dev",
            "1.2-snapshot3",
            "1.2-alpha1",
            "1.2-beta",
            "1.2-beta2",
            "1.2-pre1",
            "1.2-rc1",
            "1.2-rc2",
            "1.2",
            "1.2-py3",
            "1.2.1",
        ],
        ["3.0.0a1", "3.0.0b1", "3.0.0rc4", "3.0.0"],
        ["SL23", "SL23a", "SL23b", "SL23f", "SL24"],
        ["v1.9", "v1.10", "1.11"],
        ["22.07-py3", "22.12-py3", "23.01-py3"],
        ["1.12.1-cuda11.3-cudnn8", "1.13.0-cuda11.6-cudnn8"],
        ["2020-10-27_freeze", "2022-04-14.build6021", "2022-04-14.build6022"],
        ["rhel8-m202301", "rhel8-m202412"],
        ["8", "8-cuda-11.0.3", "9", "9-cuda-12.6.0"],
        ["nightly", "main", "1"],
        ["1.0-RC1", "1.0"],
        ["1.2.3", "1.2.3-1"],
        ["9" * 60, "1" + "0" * 60],
    ],
    ids=" ".join,
)
def test_versions_are_ordered_as_people_count(oldest_first: list[str]) -> None:
    assert ordered(oldest_first[::-1]) == oldest_first


def test_tags_of_one_version_are_ordered_as_text() -> None:
    assert ordered(["v1.0", "1.00", "1.0", "1-0"]) == ["1-0", "1.0", "1.00", "v1.0"]


def test_by_name_is_by_text_alone() -> None:
    assert ordered(["v2", "1.9", "1.10", "B", "a"], "name") == ["1.10", "1.9", "B", "a", "v2"]


_TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True) | st.lists(
    st.sampled_from(["1", "2", "10", "01", ".", "-", "_", "v", "rc", "a", "b", "dev", "py", "V", "RC"]), min_size=1, max_size=6
).map(lambda parts: "x" + "".join(parts))


@pytest.mark.untraced
@pytest.mark.parametrize("by", ["version", "name"])
@given(tags=st.lists(_TAGS, min_size=1, max_size=8, unique=True), data=st.data())
def test_the_order_is_total_and_does_not_depend_on_how_the_tags_come(
    by: tag_order.Order, tags: list[str], data: st.DataObject
) -> None:
    key = tag_order.key(by)
    assert len({key(tag) for tag in tags}) == len(tags)
    assert ordered(tags, by) == ordered(data.draw(st.permutations(tags)), by)
