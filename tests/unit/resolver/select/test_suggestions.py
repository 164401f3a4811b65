from __future__ import annotations

import pytest

from publisher.resolver.select import suggestions

KNOWN = ("htc/rocky:8", "htc/rocky:9", "htc/rocky:9-cuda", "htc/rockyou:9", "library/debian:12", "opensciencegrid/tensorflow:2")


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("HTC/Rocky:9", "htc/rocky:9"),
        ("htc/rokcy:9", "htc/rocky:9"),
        ("htc/rock:9", "htc/rocky:9"),
        ("htc/rocky:latest", "htc/rocky:8"),
        ("library/debain:12", "library/debian:12"),
    ],
)
def test_case_letters_and_other_tags_are_suggested(name: str, first: str) -> None:
    assert suggestions.similar(name, KNOWN)[0] == first


def test_three_names_at_most_and_none_that_differ_by_more() -> None:
    assert suggestions.similar("htc/rocky:latest", KNOWN) == ["htc/rocky:8", "htc/rocky:9", "htc/rocky:9-cuda"]
    assert suggestions.similar("tensorflow:2", KNOWN) == []


def test_the_sentence_names_them() -> None:
    assert suggestions.sentence([]) == ""
    assert suggestions.sentence(["a:1"]) == "; did you mean a:1?"
    assert suggestions.sentence(["a:1", "b:1", "c:1"]) == "; did you mean a:1, b:1 or c:1?"
