"""SIFs on the list: how they are written, named and pinned, and what is refused."""

from __future__ import annotations

import pytest

from publisher.contract.errors import InvalidReferenceError
from publisher.contract.reference import Reference
from publisher.errors import ListError
from publisher.images import reader, sif_sources
from publisher.images.variant import ImageVariant
from tests.support.publisher.lists import listed, parse

PIN = "a" * 64
DIGEST = f"sha256:{PIN}"
OSDF = "osdf:///ospool/ap40/data/x/solver-1.2.sif"


def problems(*entries: str) -> str:
    with pytest.raises(ListError) as refused:
        reader.parse(listed(*entries).encode(), "images.yaml", reader.NAME_TEMPLATES[0])
    return "\n".join(refused.value.problems)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("oras://ghcr.io/lab/solver:1.2", Reference("ghcr.io", "lab/solver", "1.2", None, "oras")),
        ("oras://lab/solver", Reference("docker.io", "lab/solver", "latest", None, "oras")),
        (OSDF, Reference("", "ospool/ap40/data/x/solver-1.2.sif", None, None, "osdf")),
        (f"{OSDF}@{DIGEST}", Reference("", "ospool/ap40/data/x/solver-1.2.sif", None, DIGEST, "osdf")),
        ("https://example.org:8443/a~b/x.sif", Reference("example.org:8443", "a~b/x.sif", None, None, "https")),
        ("ghcr.io/lab/solver:1.2", Reference("ghcr.io", "lab/solver", "1.2")),
    ],
)
def test_a_reference_is_read_and_written(text: str, reference: Reference) -> None:
    assert sif_sources.parse(text) == reference
    assert sif_sources.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/../x.sif",
        "https://user:word@example.org/x.sif",
        "https://example.org/x.sif?token=1",
        "https:///x.sif",
        "osdf://example.org/x.sif",
        "osdf:/x.sif",
        "osdf:///x.img",
        "https://example.org/a b.sif",
        f"{OSDF}@sha256:abc",
    ],
)
def test_what_is_no_url_of_a_sif_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        sif_sources.parse(text)


def test_sifs_become_entries() -> None:
    """One in a registry is named by its reference, one at a URL by its entry, which pins it."""
    first, second, third = parse(
        listed(
            "oras://ghcr.io/lab/solver:1.2",
            f"{{image: {OSDF}, name: 'x/solver:1.2', sha256: {PIN}, platforms: [linux/arm64]}}",
            f"{{image: https://example.org/x.sif, name: 'x/other:1', sha256: '{DIGEST}'}}",
        )
    )
    assert (first.name, str(first.reference)) == ("lab/solver:1.2", "oras://ghcr.io/lab/solver:1.2")
    assert (second.name, str(second.reference)) == ("x/solver:1.2", f"{OSDF}@{DIGEST}")
    assert (third.name, str(third.reference)) == ("x/other:1", f"https://example.org/x.sif@{DIGEST}")
    assert [entry.name for entry in reader.select((first, second), ["oras://ghcr.io/lab/solver:1.2"])] == ["lab/solver:1.2"]


def test_tags_and_patterns_are_of_sifs_too() -> None:
    found = reader.parse(
        listed("{image: oras://ghcr.io/lab/solver, tags: ['1.*', '2.0']}").encode(), "f", reader.NAME_TEMPLATES[0]
    )
    assert [str(entry.reference) for entry in found.entries] == ["oras://ghcr.io/lab/solver:2.0"]
    expanded = reader.expand(found.patterns[0], ["1.1", "1.0", "3"])
    assert [str(entry.reference) for entry in expanded] == ["oras://ghcr.io/lab/solver:1.1", "oras://ghcr.io/lab/solver:1.0"]


def test_variants_may_be_sifs() -> None:
    variants = f"[{{image: {OSDF}, sha256: {PIN}}}, {{image: 'oras://ghcr.io/lab/solver:v3', when: x86-64-v3}}]"
    (family,) = parse(listed(f"{{image: lab/solver:1.2, variants: {variants}}}"))
    references = [str(one.reference) for one in family.platforms if isinstance(one, ImageVariant)]
    assert references == [f"{OSDF}@{DIGEST}", "oras://ghcr.io/lab/solver:v3"]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (OSDF, "name: a SIF at a URL has no name of its own"),
        (f"{{image: {OSDF}, name: 'x/y:1'}}", "sha256: it must say which SIF is meant"),
        (f"{{image: {OSDF}, name: 'x/y:1', sha256: abc}}", "is not a sha256"),
        (f"{{image: {OSDF}, name: 'x/y', sha256: {PIN}}}", "is not a name with a tag"),
        (f"{{image: {OSDF}, name: 'x/.images/y:1', sha256: {PIN}}}", "is reserved"),
        (f"{{image: {OSDF}, name: 'solver:1', sha256: {PIN}}}", "is not the name of an image in full"),
        (f"{{image: {OSDF}, name: 'x/y:1', sha256: {PIN}, tags: ['1']}}", "tags: a SIF at a URL has no tags"),
        (f"{{image: {OSDF}, name: 'x/y:1', sha256: {PIN}, platforms: [linux/amd64, linux/arm64]}}", "a SIF is for one platform"),
        ("{image: 'oras://x/y:1', platforms: [linux/amd64, linux/arm64]}", "a SIF is for one platform"),
        ("{image: 'x/y:1', name: 'x/z:1'}", "name: remove it"),
        (f"{{image: 'oras://x/y:1', sha256: {PIN}}}", "sha256: remove it"),
        (f"{{image: 'x/y:1', variants: [{{image: {OSDF}}}]}}", "sha256: it must say which SIF is meant"),
        (f"{{image: {OSDF}, sha256: {PIN}, variants: [{{image: 'x/y:1'}}]}}", "with variants it is the name of all of them"),
        ("http://example.org/x.sif", "can be changed on its way; write https://"),
        (f"'{OSDF}@{DIGEST}'", "write the URL alone"),
        ("https://example.org/a b.sif", "is not the URL of a SIF"),
        ("https://hub.docker.com/r/htc/rocky", "is the address of a web page"),
        (
            f"{{image: {OSDF}, name: 'x/y:1', sha256: {PIN}, require: signed, signed_by: {{identity: a, issuer: b}}}}",
            "require: a SIF at a URL has no signatures",
        ),
    ],
)
def test_an_entry_that_cannot_be_published_is_refused(entry: str, problem: str) -> None:
    assert problem in problems(entry)


def test_two_entries_cannot_have_one_name() -> None:
    other = f"{{image: {OSDF}, name: 'htc/rocky:9', sha256: {PIN}}}"
    assert "would both be published as htc/rocky:9" in problems("htc/rocky:9", other)
    assert "would both be published as htc/rocky:9" in problems("htc/rocky:*", other)
    assert "would both be published as htc/rocky:9" in problems("htc/rocky:9", "oras://htc/rocky:9")
