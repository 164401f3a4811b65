"""Any list is either accepted, or refused with line numbers."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.errors import ListError
from publisher.images import reader
from publisher.images.reader import ImageList
from tests.support.publisher.lists import listed, parse

_PARTS = st.from_regex(r"[a-z0-9]{1,4}(-[a-z0-9]{1,3})?", fullmatch=True)
_REFERENCES = st.builds("q{}/{}:{}".format, _PARTS, _PARTS, _PARTS)


@pytest.mark.untraced
@given(
    st.lists(_REFERENCES, min_size=1, max_size=8, unique=True).flatmap(
        lambda found: st.tuples(st.just(found), st.permutations(found))
    )
)
def test_the_order_of_entries_does_not_matter(both: tuple[list[str], list[str]]) -> None:
    one, other = (set(parse(listed(*entries))) for entries in both)
    assert one == other


def _tried(content: bytes) -> None:
    try:
        found = reader.parse(content, "images.yaml")
    except ListError as refused:
        said = refused.problems
    else:
        assert found != ImageList(())
        return
    assert said
    assert all(re.match(r"images\.yaml:[1-9][0-9]*: .", line) for line in said)


_TELLING = [
    "debian:12",
    "linux/amd64",
    "sif",
    "20 GB",
    "2027-01-31",
    "a:*",
    "..",
    "1.*",
    "[",
    "version",
    "1e999",
    "0001-01-01 00:00:00+23:59",
]
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.dates(), st.datetimes(),
    st.sampled_from(_TELLING),
)  # fmt: skip
_WORDS = st.sampled_from(
    [
        "version",
        "groups",
        "title",
        "images",
        "image",
        "platforms",
        "formats",
        "expires",
        "max_size",
        "owner",
        "defaults",
        "tags",
        "exclude",
        "keep",
        "order",
        "private",
    ]
)
_TREES = st.recursive(
    _SCALARS, lambda below: st.lists(below, max_size=4) | st.dictionaries(_WORDS, below, max_size=5), max_leaves=20
)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(content: bytes) -> None:
    _tried(content)


@given(st.text(alphabet="-:[]{}&*!|>'\"%@`#?,<~ \n\tab1.", max_size=60))
def test_text_that_looks_like_yaml_is_refused_and_nothing_else_happens(text: str) -> None:
    _tried(f"version: 1\ngroups:\n- title: a\n  images:\n  - {text}".encode())


@pytest.mark.untraced
@settings(deadline=None)
@given(st.fixed_dictionaries({"version": st.just(1)}, optional={"groups": _TREES, "defaults": _TREES}))
def test_values_of_any_kind_anywhere_are_refused_and_nothing_else_happens(tree: dict[str, object]) -> None:
    _tried(yaml.safe_dump(tree).encode())


@pytest.mark.untraced
@settings(deadline=None)
@given(st.lists(_TREES, min_size=1, max_size=4))
def test_entries_of_any_kind_are_refused_and_nothing_else_happens(entries: list[object]) -> None:
    _tried(yaml.safe_dump({"version": 1, "groups": [{"title": "a", "images": entries}]}).encode())
