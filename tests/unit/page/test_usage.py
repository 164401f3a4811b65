"""How to use an image: lines that a user copies as they are."""

from __future__ import annotations

from publisher.page.usage import usage_lines
from tests.support.page.world import NAME, PageWorld, record, version

ROCKY = PageWorld().snapshot.records["htc/rocky:9"]


def lines(origin: str = "osdf:///ospool/images/", one: object = ROCKY) -> dict[str, str]:
    return {line.title: line.text for line in usage_lines(one, NAME, origin)}  # type: ignore[arg-type]


def test_both_universes_and_a_terminal_name_the_path_in_cvmfs() -> None:
    found = lines()
    assert found["HTCondor, vanilla universe"] == f'universe = vanilla\n+SingularityImage = "/cvmfs/{NAME}/htc/rocky:9"'
    assert found["HTCondor, container universe"] == f"universe = container\ncontainer_image = /cvmfs/{NAME}/htc/rocky:9"
    assert found["At a terminal, with CVMFS"] == f"apptainer exec /cvmfs/{NAME}/htc/rocky:9 COMMAND"


def test_each_platform_has_the_url_of_its_sif() -> None:
    found = lines()
    for platform in ("amd64", "arm64"):
        sif = ROCKY.platforms[platform][0].sif
        assert sif is not None
        assert found[f"URL of the SIF for {platform}"] == f"osdf:///ospool/images/{sif.path}"
    assert found["At a terminal, without CVMFS"].startswith("pelican object get osdf:///ospool/images/sif/")


def test_an_origin_without_a_federation_is_read_with_curl_and_a_directory_has_no_url() -> None:
    assert lines("https://origin.example.org/")["At a terminal, without CVMFS"].startswith("curl -o image.sif https://")
    assert not any("SIF" in title for title in lines(""))


def test_a_form_that_is_not_published_is_not_offered() -> None:
    assert "At a terminal, with CVMFS" not in lines(one=record("htc/a:1", version("a", sandbox=None)))
    assert not any("SIF" in title for title in lines(one=record("htc/a:1", version("a", sif=None))))
