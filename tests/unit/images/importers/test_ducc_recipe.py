"""Import of ducc's recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import ListError
from publisher.images import reader
from publisher.images.importers import convert
from tests.support.publisher.shared_data import shared

if TYPE_CHECKING:
    from publisher.images.importers.convert import Imported
    from publisher.images.reader import ImageList

HEX = "a" * 64
WITH_REGISTRY = reader.NAME_TEMPLATES[1]


def recipe(*urls: str) -> bytes:
    """Return a recipe; its first URL is in line 6."""
    head = "version: 1\nuser: someone\ncvmfs_repo: 'unpacked.example.org'\noutput_format: 'https://x.org/$(image)'\ninput:\n"
    return (head + "".join(f"    - '{url}'\n" for url in urls)).encode()


def read(imported: Imported) -> ImageList:
    return reader.parse(imported.text.encode(), "images.yaml", WITH_REGISTRY)


def test_the_recipe_of_unpacked_is_imported() -> None:
    path = shared("unpacked.cern.ch-recipe.yaml")
    imported = convert.load(path)
    listed = read(imported)
    lines = path.read_text().splitlines()
    urls = {line.strip(" -'") for line in lines if "://" in line and "output_format" not in line}
    wanted = {url.removeprefix("https://").replace("registry.hub.docker.com", "docker.io") for url in urls}
    assert {entry.name for entry in listed.entries} | {str(pattern) for pattern in listed.patterns} == wanted
    assert [line.split(": ")[0].rpartition(":")[2] for line in imported.problems] == ["6", "22"]


def test_a_recipe_is_known_by_its_input_and_becomes_one_group() -> None:
    imported = convert.convert(recipe("https://quay.io/a/b:1", "ghcr.io/c/d:v*", "https://r.org:5005/e/f/g:2"), "recipe.yaml")
    assert imported.problems == []
    listed = read(imported)
    assert [(entry.name, entry.group) for entry in listed.entries] == [
        ("quay.io/a/b:1", "Images of unpacked.example.org"),
        ("r.org:5005/e/f/g:2", "Images of unpacked.example.org"),
    ]
    assert [str(pattern) for pattern in listed.patterns] == ["ghcr.io/c/d:v*"]


def test_what_it_says_of_names_becomes_a_comment() -> None:
    text = convert.convert(recipe("https://quay.io/a/b:1"), "recipe.yaml").text
    assert (
        f"<registry>/<repository>:<tag>. To keep these names, set in publisher.yaml: name_template: '{WITH_REGISTRY}'\n" in text
    )
    assert "# The recipe's output_format, for ducc's thin images: https://x.org/$(image)" in text


def test_the_same_path_of_two_registries_is_no_collision_in_names_with_the_registry() -> None:
    assert convert.convert(recipe("https://quay.io/a/b:1", "https://ghcr.io/a/b:1"), "recipe.yaml").problems == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://quay.io/c/d", "has no tag, and ducc has no default tag; it is imported with the tag latest"),
        (
            "https://quay.io/c/d:1.*",
            "as a regular expression, in which '.' and brackets have another meaning; it is imported as a tag pattern",
        ),
        ("https://quay.io/c/d:v[12]*", "as a regular expression, in which '.' and brackets have another meaning; it is imported"),
        ("http://quay.io/c/d:1", "was fetched without encryption; this needs insecure_registries: ['quay.io'] in publisher.yaml"),
        ("https://registry.hub.docker.com/c/d:1", "the names of all Docker Hub images begin with docker.io/…"),
    ],
)
def test_what_is_not_quite_what_it_was_is_told_and_imported(url: str, says: str) -> None:
    imported = convert.convert(recipe("https://quay.io/a/b:1", url), "recipe.yaml")
    (told,) = imported.problems
    assert told.startswith("recipe.yaml:7: ")
    assert says in told
    listed = read(imported)
    assert len(listed.entries) + len(listed.patterns) == 2


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://quay.io/C/d:1", "the repository 'C/d' has capital letters"),
        (f"https://quay.io/c/d@sha256:{HEX}", "has a digest but no tag"),
        ("https://quay.io/c/d:1:2", "is not a tag"),
        ("https:///c/d:1", "is not the URL of an image; write https://REGISTRY/REPOSITORY:TAG"),
        ("ftp://quay.io/c/d:1", "is not the URL of an image"),
        ("https://quay.io/c/d:1?x=2", "is not the URL of an image"),
        ("https://quay.io/c/d:v?*", "is not the URL of an image"),
        ("https://quay.io/c/../d:1", "contains '..', which is reserved"),
        ("https://[quay.io/c/d:1", "not imported: "),
        ("https://quay.io/a/b:1", "quay.io/a/b:1 is already listed in line 6"),
    ],
)
def test_what_cannot_be_imported_is_told_and_left_out(url: str, says: str) -> None:
    imported = convert.convert(recipe("https://quay.io/a/b:1", url), "recipe.yaml")
    (told,) = imported.problems
    assert told.startswith("recipe.yaml:7: not imported: ")
    assert says in told
    assert [entry.name for entry in read(imported).entries] == ["quay.io/a/b:1"]


def test_inputs_that_are_no_texts_or_share_a_line_are_told() -> None:
    imported = convert.convert(b"version: 1\ninput:\n  - quay.io/a/b:1\n  - 3\n  - [x]\n", "recipe.yaml")
    assert [line.split(": ")[0] for line in imported.problems] == ["recipe.yaml:4", "recipe.yaml:5"]
    imported = convert.convert(b"version: 1\ninput: [quay.io/a/b:1, quay.io/c/d:1]\n", "recipe.yaml")
    assert "'quay.io/c/d:1' is on the same line as another URL" in imported.problems[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: 2\ninput: [quay.io/a/b:1]\n", "recipe.yaml:1: the recipe's version is not 1"),
        ("input: [quay.io/a/b:1]\n", "recipe.yaml:1: the recipe's version is not 1"),
        ("version: 1\ninput: quay.io/a/b:1\n", "recipe.yaml:2: the recipe has no list of URLs under input"),
        ("version: 1\n", "recipe.yaml:1: the recipe has no list of URLs under input"),
        ("- 1\n", "recipe.yaml:1: the file is not a recipe"),
        ("input: ]\n", "recipe.yaml:1: this is not YAML"),
        ("version: 1\ninput: []\n", "recipe.yaml:1: none of its images can be imported"),
    ],
)
def test_a_recipe_that_is_none_is_refused(text: str, says: str) -> None:
    with pytest.raises(ListError) as refused:
        convert.convert(text.encode(), "recipe.yaml", "recipe")
    assert refused.value.problems[0].startswith(says)
