"""Contradictions between values that are each valid: within an entry, and between entries.

The entries are validated one by one here, so that contradictions are reported even if other parts of the file are invalid.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from publisher.errors import UsageError
from publisher.images import tag_patterns
from publisher.images.entry import cvmfs_name, render_name
from publisher.images.list_model import PublicationKeys
from publisher.images.sif_sources import is_url
from publisher.images.tag_patterns import TagSet
from publisher.system import safepath, yamlfile
from publisher.system.yamlfile import YamlProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.contract.reference import Reference
    from publisher.system.yamlfile import YamlNode

_MAX_PATTERNS = 100
"""Pattern entries of one repository; each is compared with each."""


class _PatternEntry(NamedTuple):
    """An entry with tag patterns: its line, its repository and the tags that it selects."""

    line: int
    repository: Reference
    tags: TagSet


class _NamedEntry(NamedTuple):
    """An entry for a single tag: its line and its reference."""

    line: int
    reference: Reference


def find(root: YamlNode, name_template: str) -> Iterator[YamlProblem]:
    """Yield the contradictions in an image list that may be invalid in any other way."""
    entries: dict[str, _NamedEntry] = {}
    patterns: dict[str, list[_PatternEntry]] = defaultdict(list)
    for node in _image_nodes(root):
        keys, _ = yamlfile.validate(PublicationKeys, node)
        if keys is None:
            continue  # the validation of the whole file reports it
        yield from _check_entry(keys, node)
        line = node.find(["image"]).line
        yield from _check_names(keys, line, name_template, entries)
        if keys.patterns:
            tags = TagSet(keys.patterns, tuple(keys.exclude or ()))
            yield from _check_pattern(_PatternEntry(line, keys.image.reference.pointing_at(None), tags), name_template, patterns)
    yield from _check_entries_against_patterns(entries, patterns)


def _check_entry(keys: PublicationKeys, node: YamlNode) -> Iterator[YamlProblem]:
    """Yield the contradictions between the keys of one entry."""
    reference = keys.image.reference
    if keys.tags is not None and not keys.image.bare and not is_url(reference):
        bare = f"{reference.registry}/{reference.repository}"
        text = f"tags: the image already has a tag; write the repository alone, {bare}, and list all tags here"
        yield YamlProblem(node.find(["tags"]).line, text)
        return
    if not keys.patterns:
        for key in ("exclude", "keep"):
            if getattr(keys, key) is not None:
                text = f"{key}: it has no effect without a tag pattern; remove it, or write a tag pattern such as '1.*'"
                yield YamlProblem(node.find([key]).line, text)
    if keys.order is not None and keys.keep is None:
        text = "order: it has no effect without keep; add keep and the number of tags to keep"
        yield YamlProblem(node.find(["order"]).line, text)
    if keys.exclude is not None:
        yield from _check_exclude(keys, TagSet(tuple(keys.exclude)), node.find(["exclude"]).line)
    yield from _check_signer(node)


def _check_signer(node: YamlNode) -> Iterator[YamlProblem]:
    """Yield the problem of an entry that has only one of ``require`` and ``signed_by``."""
    present = [key for key in ("require", "signed_by") if isinstance(node.value, dict) and key in node.value]
    if present == ["require"]:
        yield YamlProblem(
            node.find(["require"]).line, "require: say whose signature under signed_by: identity and issuer, or public_key"
        )
    elif present == ["signed_by"]:
        yield YamlProblem(node.find(["signed_by"]).line, "signed_by: it has no effect alone; add require: signed")


def _check_exclude(keys: PublicationKeys, excluded: TagSet, line: int) -> Iterator[YamlProblem]:
    tag = next((tag for tag in keys.tag_names if tag in excluded), None)
    if tag is not None:
        yield YamlProblem(line, f"exclude: it excludes {tag!r}, which the entry lists by name; remove one of the two")
    if keys.patterns:
        try:
            if tag_patterns.shortest_common_tag(TagSet(keys.patterns, excluded.include)) is None:
                text = "exclude: it excludes every tag that the tag patterns match; remove it, or remove the entry"
                yield YamlProblem(line, text)
        except ValueError as error:
            yield YamlProblem(line, f"exclude: {error}")


def _check_names(keys: PublicationKeys, line: int, name_template: str, entries: dict[str, _NamedEntry]) -> Iterator[YamlProblem]:
    """Yield the entry's names that are too long or belong to an earlier entry; add the others to ``entries``."""
    for listed in keys.references:
        reference = listed.pointing_at(listed.tag)
        try:
            name = cvmfs_name(reference, name_template, keys.name)
        except UsageError as error:
            yield YamlProblem(line, f"{error.reason}; choose a shorter tag")
            continue
        earlier = entries.setdefault(name, _NamedEntry(line, reference))
        if earlier.reference is reference:
            continue
        if earlier.reference == reference:
            yield YamlProblem(line, f"{reference} is already listed in line {earlier.line}; remove one")
        else:
            other = f"{earlier.reference} in line {earlier.line}"
            yield YamlProblem(line, f"{reference} and {other} would both be published as {name}; remove one")


def _check_pattern(pattern: _PatternEntry, name_template: str, patterns: dict[str, list[_PatternEntry]]) -> Iterator[YamlProblem]:
    """Yield the contradiction of a pattern entry with an earlier one that can produce the same name; add it to ``patterns``."""
    longest = pattern.repository.pointing_at("x" * tag_patterns.LONGEST_TAG)
    prefix = render_name(longest, name_template).removesuffix(longest.tag or "")
    try:
        safepath.split(f"{prefix}{longest.tag}", UsageError)
    except UsageError:
        text = f"the tags of {pattern.repository} could make names that are too long; list each tag by name"
        yield YamlProblem(pattern.line, text)
    earlier = patterns[prefix]
    earlier.append(pattern)
    if len(earlier) > _MAX_PATTERNS:
        text = (
            f"more than {_MAX_PATTERNS} entries with tag patterns publish as {prefix}TAG; combine them in the tags of one entry"
        )
        yield YamlProblem(pattern.line, text)
        return
    for other in earlier[:-1]:
        try:
            tag = tag_patterns.shortest_common_tag(pattern.tags, other.tags)
        except ValueError as error:
            yield YamlProblem(pattern.line, f"{error} (the other entry is in line {other.line})")
            return
        if tag is not None:
            yield YamlProblem(pattern.line, _describe_overlap(pattern, other, tag, prefix))
            return


def _describe_overlap(pattern: _PatternEntry, other: _PatternEntry, tag: str, prefix: str) -> str:
    if pattern.repository == other.repository:
        overlap = f"{pattern.repository} also has a tag pattern in line {other.line}, and both match tags such as {tag!r}"
        return f"{overlap}; combine them in the tags of one entry, or exclude what the other entry matches"
    both = f"{pattern.repository} and {other.repository} in line {other.line} would both publish tags as {prefix}TAG"
    return f"{both}, such as {tag!r}; remove one"


def _check_entries_against_patterns(
    entries: dict[str, _NamedEntry], patterns: dict[str, list[_PatternEntry]]
) -> Iterator[YamlProblem]:
    """Yield the entries whose name a pattern of another repository can produce; in the same repository the entry wins."""
    for name, (line, reference) in entries.items():
        tag = name.rpartition(":")[2]
        for pattern in patterns.get(name.removesuffix(tag), ()):
            if pattern.repository != reference.pointing_at(None) and tag in pattern.tags:
                other = f"a tag of {pattern.repository} that the tag pattern in line {pattern.line} matches"
                text = f"{reference} and {other} would both be published as {name}; remove one, or exclude the tag there"
                yield YamlProblem(line, text)
                break


def _image_nodes(root: YamlNode) -> Iterator[YamlNode]:
    yield from _list_at(root, "images")
    for group in _list_at(root, "groups"):
        yield from _list_at(group, "images")


def _list_at(node: YamlNode, key: str) -> list[YamlNode]:
    child = node.find([key])
    return child.value if child is not node and isinstance(child.value, list) else []
