from __future__ import annotations

import pytest

from publisher.oci import Platform
from publisher.state import paths


@pytest.mark.parametrize(
    ("platform", "key"),
    [("linux/amd64", "amd64"), ("linux/arm64", "arm64"), ("linux/arm64/v8", "arm64"), ("linux/arm/v7", "arm/v7")],
)
def test_platforms_have_one_name_in_the_manifest(platform: str, key: str) -> None:
    assert paths.platform_key(Platform(*platform.split("/"))) == key


def test_data_is_named_by_the_platform_manifest_and_the_sif_by_its_content() -> None:
    assert paths.sandbox_path("sha256:" + "ab" * 32) == ".images/ab/" + "ab" * 31
    assert paths.sif_path("cd" * 32) == "sif/cd/" + "cd" * 32 + ".sif"


@pytest.mark.parametrize(
    ("path", "target"),
    [("plain:1", ".images/a/b"), ("htc/rocky:9", "../.images/a/b"), (".arch/arm64/htc/rocky:9", "../../../.images/a/b")],
)
def test_links_are_relative(path: str, target: str) -> None:
    assert paths.link_target(path, ".images/a/b") == target


@pytest.mark.parametrize(
    ("platforms", "links"),
    [
        ([], {}),
        (["amd64"], {"a:1": "amd64"}),
        (["arm64", "amd64"], {"a:1": "amd64", ".arch/arm64/a:1": "arm64"}),
        (["ppc64le", "arm64"], {"a:1": "arm64", ".arch/arm64/a:1": "arm64", ".arch/ppc64le/a:1": "ppc64le"}),
    ],
)
def test_the_plain_name_shows_amd64_or_what_there_is(platforms: list[str], links: dict[str, str]) -> None:
    assert paths.link_paths("a:1", platforms) == links
