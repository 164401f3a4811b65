"""The paths of the page's files: one for each image, whatever its name."""

from __future__ import annotations

import itertools

from publisher.page import places

NAMES = (
    "htc/rocky:9",
    "htc/rocky:9.html",
    "htc/rocky:9.html.html",
    "9.html/x:1",
    "a:b",
    "localhost:5000/a:b",
    "localhost:5000/x/y:b",
)


def test_an_image_has_a_page_that_its_name_leads_to() -> None:
    assert places.image_path("htc/rocky:9") == "image/htc/rocky:9.html"
    assert places.badge_path("htc/rocky:9") == "badge/htc/rocky:9.svg"
    assert places.root_of(places.image_path("htc/rocky:9")) == "../../"
    assert places.root_of("index.html") == ""


def test_no_page_is_where_another_one_has_its_directory() -> None:
    paths = [places.image_path(name) for name in (*NAMES, "x" * 300 + ":1")]
    assert len(set(paths)) == len(paths)
    assert not any(one.startswith(f"{other}/") for one, other in itertools.permutations(paths, 2))


def test_a_name_that_is_too_long_for_a_file_gets_a_short_one() -> None:
    path = places.image_path("htc/" + "x" * 250 + ":1")
    assert len(path) < 100
    assert path.startswith("image/.long/")  # no repository's name begins with a dot


def test_a_colon_in_a_url_is_no_scheme() -> None:
    assert places.url("image/javascript:alert(1).html") == "image/javascript%3Aalert%281%29.html"


def test_every_name_has_a_shard() -> None:
    assert [places.shard_count(rows) for rows in (0, 256, 257, 700, 10_000, 10**6)] == [1, 1, 2, 4, 64, 64]
    assert {places.shard_number(str(number), 64) for number in range(2000)} == set(range(64))
    assert places.shard_path(7) == "data/images-07.js"
