"""What the configuration says of single registries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import ListError
from publisher.settings import registry_options, settings

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
    found = settings.settings({"config": str(path)}, {"HOME": "/h"})
    assert found.mirrors == {
        "docker.io": ("https://mirror.gcr.io", "http://127.0.0.1:5000"),
        "ghcr.io": ("https://harbor.example/ghcr",),
    }
    assert found.rates == {"docker.io": 5.0, "ghcr.io": 0.5}
    assert (found.mirror_tags, found.longest_pause, found.registry_concurrency) == (False, 300, 64)


def test_flags_and_variables_have_them_in_words() -> None:
    flags = {"mirrors": "index.docker.io=https://a.example,docker.io=https://b.example", "mirror_tags": "false"}
    found = settings.settings(flags, {"HOME": "/h", "PUBLISHER_RATES": "docker.io=5, ghcr.io=20"})
    assert found.mirrors == {"docker.io": ("https://a.example", "https://b.example")}
    assert found.rates == {"docker.io": 5.0, "ghcr.io": 20.0}
    assert found.mirror_tags is False


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("https://a.example", "is no registry"),
        ("docker.io=", "'' is no mirror"),
        ({"docker.io": [7]}, "'7' is no mirror"),
        ({"docker.io/library": ["https://a.example"]}, "'docker.io/library' is no registry; write docker.io: [https://"),
        ({"a.example:65536": ["https://b.example"]}, "is no registry"),
        ({7: ["https://b.example"]}, "7 is no registry"),
        ({"a.example": ["http://a.example"]}, "a.example cannot be its own mirror"),
        (["https://a.example"], "registries are expected here"),
    ],
)
def test_mirrors_that_are_none_are_refused(value: object, says: str) -> None:
    with pytest.raises(ValueError, match=r"registr|mirror") as failure:
        registry_options.mirrors(value)
    assert says in str(failure.value)


@pytest.mark.parametrize("rate", [0, -1, "fast", True, None, [1], float("inf"), float("nan"), "", 1e9, 10**400])
def test_rates_that_are_none_are_refused(rate: object) -> None:
    with pytest.raises(ValueError, match=r"is no rate for docker\.io; write requests per second"):
        registry_options.rates({"docker.io": rate})


def test_a_wrong_preference_is_a_problem_of_the_configuration_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "publisher.yaml"
    path.write_text("images: a\nmirrors:\n  docker.io: [ftp://a]\n")
    with pytest.raises(ListError) as refused:
        settings.settings({"config": str(path)}, {"HOME": "/h"})
    (said,) = refused.value.problems
    assert said.startswith(f"{path}:2: mirrors: 'ftp://a' is no mirror; write a URL")
