"""Entries of the list whose image, or one of whose variants, is a SIF: which keys they need, and which have no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.images.sif_sources import is_url
from publisher.system.yamlfile import YamlProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from publisher.contract.reference import Reference
    from publisher.images.list_model import ListedImage
    from publisher.oci import Platform
    from publisher.system.yamlfile import YamlNode


def find_problems(image: ListedImage, platforms: Sequence[Platform], node: YamlNode) -> Iterator[YamlProblem]:
    """Yield what is wrong with an entry whose image, or one of whose variants, is a SIF; ``node`` is the entry in the file."""
    listed = image.image.reference
    if not is_url(listed):
        yield from _needless(node, "name", image.name, "an image and a SIF in a registry get their name from their reference")
    elif image.variants is not None:
        yield YamlProblem(node.line, "image: with variants it is the name of all of them; write REPOSITORY:TAG")
    else:
        if image.name is None:
            yield YamlProblem(node.line, "name: a SIF at a URL has no name of its own; write one, such as name: 'lab/solver:1.2'")
        if image.tags is not None:
            yield YamlProblem(node.find(["tags"]).line, "tags: a SIF at a URL has no tags; write an entry for each SIF")
        if image.require is not None:
            text = "require: a SIF at a URL has no signatures; its sha256 says which one it is. Push it to a registry (oras://)"
            yield YamlProblem(node.find(["require"]).line, text)
    yield from _find_pin_problems(listed, image.sha256, node, needed=image.variants is None)
    for number, variant in enumerate(image.variants or ()):
        yield from _find_pin_problems(variant.image.reference, variant.sha256, node.find(["variants", number]), needed=True)
    if listed.scheme and image.variants is None and len(platforms) > 1:
        named = " and ".join(map(str, platforms))
        text = f"platforms: a SIF is for one platform, not for {named}; write platforms: with one, or variants for others"
        yield YamlProblem(node.line, text)


def _find_pin_problems(reference: Reference, sha256: str | None, node: YamlNode, *, needed: bool) -> Iterator[YamlProblem]:
    if not is_url(reference):
        yield from _needless(node, "sha256", sha256, "it is for SIFs at a URL; pin others by a digest, REPOSITORY:TAG@sha256:…")
    elif needed and sha256 is None:
        text = f"sha256: it must say which SIF is meant by {reference}; write what sha256sum prints for the file"
        yield YamlProblem(node.line, text)


def _needless(node: YamlNode, key: str, value: object, why: str) -> Iterator[YamlProblem]:
    if value is not None:
        yield YamlProblem(node.find([key]).line, f"{key}: remove it: {why}")
