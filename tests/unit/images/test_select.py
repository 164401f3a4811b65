from __future__ import annotations

import pytest

from publisher.errors import UsageError
from publisher.images import reader
from tests.support.publisher.lists import listed, parse

DIGEST = "sha256:" + "a" * 64
LIST = parse(listed("debian:12", "hub.opensciencegrid.org/htc/rocky:9", f"ghcr.io/x/y:1@{DIGEST}"))


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("htc/rocky:9", "htc/rocky:9"),
        ("/cvmfs/singularity.opensciencegrid.org/htc/rocky:9", "htc/rocky:9"),
        ("docker://hub.opensciencegrid.org/htc/rocky:9", "htc/rocky:9"),
        ("hub.opensciencegrid.org/htc/rocky:9", "htc/rocky:9"),
        ("debian:12", "library/debian:12"),
        ("ghcr.io/x/y:1", "x/y:1"),
        (f"ghcr.io/x/y:1@{DIGEST}", "x/y:1"),
    ],
)
def test_an_image_is_found_under_each_of_its_names(wanted: str, name: str) -> None:
    assert [entry.name for entry in reader.select(LIST, [wanted])] == [name]


@pytest.mark.parametrize("wanted", ["docker://ghcr.io/htc/rocky:9", "docker://htc/rocky:9", "debian", f"debian:12@{DIGEST}", ""])
def test_an_image_of_another_source_is_not_taken_for_it(wanted: str) -> None:
    with pytest.raises(UsageError, match="not in the image list"):
        reader.select(LIST, [wanted])


def test_all_unknown_names_are_told_with_what_is_close() -> None:
    with pytest.raises(UsageError) as refused:
        reader.select(LIST, ["htc/rokcy:9", "debian:12", "x/y"])
    assert str(refused.value) == "not in the image list: htc/rokcy:9, x/y (similar images: htc/rocky:9, x/y:1)"


def test_a_selection_is_in_the_lists_order_and_has_nothing_twice() -> None:
    chosen = reader.select(LIST, ["htc/rocky:9", "debian:12", "library/debian:12"])
    assert [entry.name for entry in chosen] == ["library/debian:12", "htc/rocky:9"]


def test_nothing_named_is_everything() -> None:
    assert reader.select(LIST, []) == LIST
