from __future__ import annotations

import pytest

from publisher.errors import ListError
from publisher.images.entry import Entry
from publisher.images.list_diff import difference
from publisher.images.reader import parse as parse_list
from publisher.images.variant import plain
from publisher.oci import Platform
from publisher.state import paths
from tests.support.publisher.lists import listed, parse

RIFT = """image: rift/rift:1
        variants:
          - image: rift/rift:1-cpu
          - {image: rift/rift:1-v3, when: x86-64-v3}
          - {image: rift/gpu:1, when: "x86-64-v3, cuda>=12"}
          - {image: rift/rift:1-arm, when: arm64}"""


def family(*variants: str, more: str = "") -> str:
    return listed(f"image: a/b:1{more}\n        variants: [{', '.join(variants)}]")


def variant(tag: str, when: str = "") -> str:
    return f"{{image: a/b:{tag}{f', when: {when!r}' if when else ''}}}"


def problems(text: str) -> str:
    with pytest.raises(ListError) as refused:
        parse(text)
    return "\n".join(refused.value.problems)


def test_each_variant_is_an_image_for_some_hosts_of_a_platform() -> None:
    (entry,) = parse(listed(RIFT))
    assert (entry.name, str(entry.reference)) == ("rift/rift:1", "docker.io/rift/rift:1")
    assert {paths.platform_key(one): str(entry.reference_for(one)) for one in entry.platforms} == {
        "amd64": "docker.io/rift/rift:1-cpu",
        "amd64,x86-64-v3": "docker.io/rift/rift:1-v3",
        "amd64,x86-64-v3,cuda>=12.0": "docker.io/rift/gpu:1",
        "arm64": "docker.io/rift/rift:1-arm",
    }
    assert [str(one) for one in entry.platforms][1] == "linux/amd64,x86-64-v3"
    assert plain(entry.platforms[1]) == Platform("linux", "amd64")


def test_the_images_of_a_family_are_asked_for_one_by_one() -> None:
    (entry,) = parse(family(variant("x"), variant("x", "gpu"), variant("y", "arm64")))
    assert [(str(part.reference), part.platforms) for part in entry.parts()] == [
        ("docker.io/a/b:x", (Platform("linux", "amd64"),)),
        ("docker.io/a/b:y", (Platform("linux", "arm64"),)),
    ]
    (ordinary,) = parse(listed("a/b:1"))
    assert ordinary.parts() == (ordinary,)


def test_variants_without_an_architecture_are_for_all_platforms_of_the_entry() -> None:
    (entry,) = parse(family(variant("x"), variant("g", "gpu"), more="\n        platforms: [linux/amd64, linux/arm64]"))
    assert [paths.platform_key(one) for one in entry.platforms] == ["amd64", "arm64", "amd64,gpu", "arm64,gpu"]


def test_a_changed_condition_is_a_change_of_the_entry() -> None:
    before, after = (parse_list(family(variant("x", when)).encode(), "images.yaml") for when in ("cuda>=12.0", "cuda>=12.4"))
    assert [entry.name for entry in difference(before, after).changed.entries] == ["a/b:1"]
    assert difference(before, before).changed.entries == ()


@pytest.mark.parametrize(
    "variants",
    [
        [variant("x"), variant("y", "x86-64-v2"), variant("z", "x86-64-v3")],
        [variant("x", "gpu"), variant("y", "x86-64-v3"), variant("z", "x86-64-v3,gpu")],
        [variant("x", "nvidia-gpu"), variant("y", "amd-gpu")],
        [variant("x", "cuda>=11.0,cuda<12.0"), variant("y", "cuda>=12.0")],
        [variant("x", "amd64"), variant("y", "arm64")],
        [variant("x", "capability<8.0"), variant("x", "capability>=8.0")],
    ],
)
def test_where_each_host_has_one_best_variant_the_family_is_fine(variants: list[str]) -> None:
    (entry,) = parse(family(*variants))
    assert isinstance(entry, Entry)


@pytest.mark.parametrize(
    ("variants", "says"),
    [
        ([variant("x"), variant("y")], "docker.io/a/b:x and docker.io/a/b:y are both for linux/amd64; give one"),
        ([variant("x", "nvidia-gpu,cuda>=12"), variant("y", "cuda>=12.0")], "are both for linux/amd64,cuda>=12.0"),
        ([variant("x"), variant("y", "amd64")], "are both for linux/amd64"),
        (
            [variant("x", "gpu"), variant("y", "x86-64-v3")],
            "are equally good for a host of linux/amd64,x86-64-v3,gpu: neither is more specific; add a variant for",
        ),
        ([variant("x", "cuda>=11.0"), variant("y", "memory>=64GB")], "add a variant for 'cuda>=11.0,memory>=64GB'"),
        ([variant("x", "cuda<12.4"), variant("y", "cuda>=12.0")], "add a variant for 'cuda>=12.0,cuda<12.4'"),
    ],
)
def test_two_equally_good_answers_are_refused_with_the_host_that_has_them(variants: list[str], says: str) -> None:
    said = problems(family(*variants))
    assert says in said
    assert said.startswith("images.yaml:6: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (family(variant("x", "gpus")), "'gpus' is not a condition"),
        (family("{image: 'a/b:x', when: ''}"), "the conditions are empty"),
        (family("{image: 'a/b:x', when: 3}"), "write it in quotes"),
        (family("{image: 'a/b:*'}"), "'*' is a tag pattern; a variant is a single image"),
        (family("{image: 'a/b:x', formats: [sif]}"), "formats"),
        (family(), "variants"),
        (listed("image: a/b\n        tags: ['1', '2']\n        variants: [{image: 'a/b:x'}]"), "an image with a single tag"),
        (listed("image: a/b:1.*\n        variants: [{image: 'a/b:x'}]"), "an image with a single tag"),
        (listed(f"image: a/b:1@sha256:{'0' * 64}\n        variants: [{{image: 'a/b:x'}}]"), "digest has no effect"),
    ],
)
def test_a_family_that_is_wrong_is_refused_with_what_to_write(text: str, says: str) -> None:
    assert says in problems(text)


def test_a_pattern_beside_a_family_keeps_its_own_tags_only() -> None:
    """``keep`` counts the pattern's tags; an image that a variant names stays, whatever the pattern drops."""
    text = listed("{image: 'a/b:2.*', keep: 1}", "image: a/b:1\n        variants: [{image: 'a/b:2.0', when: gpu}]")
    image_list = parse_list(text.encode(), "images.yaml")
    (entry,), (pattern,) = image_list.entries, image_list.patterns
    assert pattern.covers("a/b:2.0")
    assert [str(part.reference) for part in entry.parts()] == ["docker.io/a/b:2.0"]
