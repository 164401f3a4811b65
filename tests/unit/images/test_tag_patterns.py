"""Tag patterns: the tags that they match, and the tags that two of them have in common."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.images.tag_patterns import TagSet, shortest_common_tag, tokens

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)


@pytest.mark.parametrize(
    ("glob", "parts"),
    [
        ("1.*", ["1", ".", "*"]),
        ("v?[12]", ["v", "?", "[12]"]),
        ("[!a-c]*", ["[!a-c]", "*"]),
        ("[]]", ["[]]"]),
        ("[!]]x", ["[!]]", "x"]),
        ("a]", ["a", "]"]),
    ],
)
def test_a_tag_pattern_is_split_as_fnmatch_does(glob: str, parts: list[str]) -> None:
    assert tokens(glob) == parts


@pytest.mark.parametrize("glob", ["[", "a[12", "[]", "[!]", "*[a-"])
def test_an_open_bracket_is_refused(glob: str) -> None:
    with pytest.raises(ValueError, match="is not closed"):
        tokens(glob)


def test_capitals_count() -> None:
    assert "Latest" not in TagSet(("latest*",))


def test_what_is_left_out_is_out() -> None:
    tags = TagSet(("1.*", "2.*"), ("*-rc*", "2.0"))
    assert [tag for tag in ("1.0", "1.1-rc1", "2.0", "2.1", "3.0") if tag in tags] == ["1.0", "2.1"]


@pytest.mark.parametrize(
    ("include", "exclude", "shortest"),
    [
        (["*"], [], "a"),
        (["*"], ["?"], "aa"),
        (["1.*"], ["1.0"], "1."),
        (["*-stable"], [], "a-stable"),
        (["[.-]*", "x"], [], "x"),
        (["?" * 128], [], "a" * 128),
        (["[ab]"], ["a"], "b"),
    ],
)
def test_the_shortest_tag_is_found(include: list[str], exclude: list[str], shortest: str) -> None:
    assert shortest_common_tag(TagSet(tuple(include), tuple(exclude))) == shortest


@pytest.mark.parametrize(
    ("include", "exclude"),
    [
        (["a/b*"], []),
        ([".*"], []),
        (["-?"], []),
        (["[.-]x"], []),
        (["v]*"], []),
        (["[z-a]"], []),
        (["?" * 129], []),
        (["a*"], ["?*"]),
    ],
)
def test_what_no_tag_can_match_is_known(include: list[str], exclude: list[str]) -> None:
    assert shortest_common_tag(TagSet(tuple(include), tuple(exclude))) is None


def test_tag_patterns_without_a_tag_in_common_are_told_from_those_with_one() -> None:
    assert shortest_common_tag(TagSet(("1.*",)), TagSet(("2.*",))) is None
    assert shortest_common_tag(TagSet(("*-py3",)), TagSet(("22.*",))) == "22.-py3"
    assert shortest_common_tag(TagSet(("*-py3",)), TagSet(("22.*",), ("*-py?",))) is None


def test_long_tag_patterns_are_compared_all_the_same() -> None:
    assert shortest_common_tag(TagSet(("*-" + "?" * 40,)), TagSet(("*a" + "?" * 60,))) is not None
    assert shortest_common_tag(TagSet(("*-" + "?" * 40,)), TagSet(("?" * 40,))) is None


def test_tag_patterns_made_to_take_for_ever_are_given_up() -> None:
    with pytest.raises(ValueError, match="write simpler ones"):
        shortest_common_tag(TagSet(("?" * 100,), tuple("*" + first + "?" * 40 for first in "abcdef")))


_GLOBS = st.lists(st.sampled_from(["a", "1", ".", "*", "?", "[a1]", "[!a]", "[!.-]", "[0-9]"]), min_size=1, max_size=5).map(
    "".join
)
_SETS = st.builds(TagSet, st.lists(_GLOBS, min_size=1, max_size=2).map(tuple), st.lists(_GLOBS, max_size=2).map(tuple))
_TAGS = st.text(alphabet="a1._-b", min_size=1, max_size=5).filter(TAG.fullmatch)


@pytest.mark.untraced
@given(_SETS, _SETS, _TAGS)
def test_an_example_is_in_all_sets_and_there_is_one_wherever_a_tag_is(one: TagSet, other: TagSet, tag: str) -> None:
    found = shortest_common_tag(one, other)
    if found is not None:
        assert TAG.fullmatch(found)
        assert found in one
        assert found in other
    if tag in one and tag in other:
        assert found is not None
        assert len(found) <= len(tag)


@given(_GLOBS, _TAGS)
def test_a_set_of_one_tag_pattern_is_what_fnmatch_matches(glob: str, tag: str) -> None:
    assert (tag in TagSet((glob,))) == fnmatch.fnmatchcase(tag, glob)
