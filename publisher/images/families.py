"""Families: entries of the list with variants. Which variants an entry has, and where a host would have two equally good ones.

A host takes the most specific variant whose conditions it meets. So of two variants that one host can meet, either each host of
the one meets the other, or a third variant has the conditions of both. An architecture makes no variant more specific, because
each variant is built for one.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import TYPE_CHECKING

from publisher.contract.conditions import Conditions
from publisher.images.list_model import sif_reference
from publisher.images.variant import ImageVariant
from publisher.oci import Platform
from publisher.system.yamlfile import YamlProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from publisher.images.list_model import ListedImage
    from publisher.system.yamlfile import YamlNode


def variants(image: ListedImage, platforms: Sequence[Platform]) -> tuple[ImageVariant, ...]:
    """Return the variants of an entry, each for one platform.

    Args:
        image: the entry.
        platforms: the platforms of variants whose conditions name no architecture.
    """
    found = []
    for listed in image.variants or ():
        required, reference = listed.when or Conditions(), sif_reference(listed.image.reference, listed.sha256)
        own = [Platform("linux", *required.arch.split("/"))] if required.arch else platforms
        conditions = Conditions(None, required.level, required.gpu, required.ranges)
        found += [ImageVariant(one.os, one.architecture, one.variant, reference=reference, conditions=conditions) for one in own]
    return tuple(found)


def find_problems(image: ListedImage, platforms: Sequence[Platform], node: YamlNode) -> Iterator[YamlProblem]:
    """Yield what is wrong with the variants of an entry; ``node`` is the entry in the file."""
    if image.variants is None:
        return
    line = node.find(["variants"]).line
    if image.tags is not None or image.patterns:
        yield YamlProblem(
            line, "variants: they need an image with a single tag, which names all of them; write an entry for each tag"
        )
    if image.image.reference.digest is not None:
        yield YamlProblem(line, "variants: the image's digest has no effect; write digests in the variants")
    for number, listed in enumerate(image.variants):
        if listed.image.tag_pattern is not None:
            own = node.find(["variants", number]).line
            yield YamlProblem(
                own, f"variants: {listed.image.tag_pattern!r} is a tag pattern; a variant is a single image, write its tag"
            )
    yield from (YamlProblem(line, f"variants: {text}") for text in _ambiguities(variants(image, platforms)))


def _ambiguities(family: Sequence[ImageVariant]) -> Iterator[str]:
    """Yield a text for each pair of variants that are equally good for some host."""
    by_platform: dict[Platform, list[ImageVariant]] = defaultdict(list)
    for variant in family:
        by_platform[variant.platform].append(variant)
    for alike in by_platform.values():
        known = {variant.conditions for variant in alike}
        for one, other in combinations(alike, 2):
            pair = f"{one.reference} and {other.reference}"
            both = one.conditions.both(other.conditions)
            if one.conditions == other.conditions:
                yield f"{pair} are both for {one}; give one of them a further condition, or remove it"
            elif both is not None and both not in known:
                hosts = f"{one.platform},{both}"
                yield (
                    f"{pair} are equally good for a host of {hosts}: neither is more specific; add a variant for '{both}', or "
                    "narrow the conditions of one"
                )
