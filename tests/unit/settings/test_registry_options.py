"""Settings with a value for each registry: mirrors and rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import ListError
from publisher.settings import registry_options
from publisher.settings.sources import load_settings

if TYPE_CHECKING:
    from pathlib import Path

FILE = """\
mirrors:
  docker.io: [https://mirror.gcr.io, 'http://127.0.0.1:5000']
  ghcr.io: https://harbor.example/ghcr
rates: {docker.io: 5, ghcr.io: 0.5}
mirror_tags: false
longest_pause: 5 min
"""


def test_the_file_has_mirrors_and_rates_by_registry(tmp_path: Path) -> None:
    path = tmp_path / "publisher.yaml"
    path.write_text(FILE)
    found = load_settings({"config": str(path)}, {"HOME": "/h"})
    assert found.mirrors == {
        "docker.io": ("https://mirror.gcr.io", "http://127.0.0.1:5000"),
        "ghcr.io": ("https://harbor.example/ghcr",),
    }
    assert found.rates == {"docker.io": 5.0, "ghcr.io": 0.5}
    assert (found.mirror_tags, found.longest_pause, found.registry_concurrency) == (False, 300, 64)


def test_flags_and_variables_take_pairs() -> None:
    flags = {"mirrors": "index.docker.io=https://a.example,docker.io=https://b.example", "mirror_tags": "false"}
    found = load_settings(flags, {"HOME": "/h", "PUBLISHER_RATES": "docker.io=5, ghcr.io=20"})
    assert found.mirrors == {"docker.io": ("https://a.example", "https://b.example")}
    assert found.rates == {"docker.io": 5.0, "ghcr.io": 20.0}
    assert found.mirror_tags is False


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("https://a.example", "is not a valid registry"),
        ("docker.io=", "'' is not the URL of a mirror"),
        ({"docker.io": [7]}, "'7' is not the URL of a mirror"),
        ({"docker.io/library": ["https://a.example"]}, "'docker.io/library' is not a valid registry; write docker.io: [https://"),
        ({"a.example:65536": ["https://b.example"]}, "is not a valid registry"),
        ({7: ["https://b.example"]}, "7 is not a valid registry"),
        ({"a.example": ["http://a.example"]}, "a.example cannot be its own mirror"),
        (["https://a.example"], "registries with their values are expected here"),
    ],
)
def test_invalid_mirrors_are_refused(value: object, says: str) -> None:
    with pytest.raises(ValueError, match=r"registr|mirror") as failure:
        registry_options.parse_mirrors(value)
    assert says in str(failure.value)


@pytest.mark.parametrize("rate", [0, -1, "fast", True, None, [1], float("inf"), float("nan"), "", 1e9, 10**400])
def test_invalid_rates_are_refused(rate: object) -> None:
    with pytest.raises(ValueError, match=r"is not a valid rate for docker\.io; write requests per second"):
        registry_options.parse_rates({"docker.io": rate})


def test_an_invalid_mirror_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "publisher.yaml"
    path.write_text("images: a\nmirrors:\n  docker.io: [ftp://a]\n")
    with pytest.raises(ListError) as refused:
        load_settings({"config": str(path)}, {"HOME": "/h"})
    (said,) = refused.value.problems
    assert said.startswith(f"{path}:2: mirrors: 'ftp://a' is not the URL of a mirror; write a URL")
