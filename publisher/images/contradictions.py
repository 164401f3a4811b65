"""What is wrong between values that are sound by themselves: within an entry, and between entries.

The nodes are looked at one by one, so that all of it is told even where other things are wrong in the file.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from publisher.contract.reference import Reference
from publisher.errors import UsageError
from publisher.images import tag_globs
from publisher.images.entry import cvmfs_name, name_of
from publisher.images.list_model import PublicationKeys
from publisher.images.tag_globs import TagSet
from publisher.system import safepath, yamlfile
from publisher.system.yamlfile import YamlProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.system.yamlfile import YamlNode

_MOST_PATTERNS = 100
"""Of one repository: each is compared with each."""


class _Pattern(NamedTuple):
    line: int
    reference: Reference
    tags: TagSet


def find(root: YamlNode, name_template: str) -> Iterator[YamlProblem]:
    """The contradictions in a file that may be wrong in any way."""
    names_taken: dict[str, tuple[int, Reference]] = {}
    patterns: dict[str, list[_Pattern]] = defaultdict(list)
    for node in _images(root):
        choice, _ = yamlfile.validate(PublicationKeys, node)
        if choice is None:
            continue  # told by the models
        yield from _within(choice, node)
        line = node.find(["image"]).line
        yield from _names(choice, line, name_template, names_taken)
        if choice.wildcards:
            tags = TagSet(choice.wildcards, tuple(choice.exclude or ()))
            yield from _pattern(_Pattern(line, _untagged(choice.image.reference), tags), name_template, patterns)
    yield from _entries_against_patterns(names_taken, patterns)


def _within(choice: PublicationKeys, node: YamlNode) -> Iterator[YamlProblem]:
    """One entry's keys against each other."""
    reference = choice.image.reference
    if choice.tags is not None and not choice.image.bare:
        bare = f"{reference.registry}/{reference.repository}"
        text = f"tags: the image names its tag already; write the repository alone, {bare}, and all tags here"
        yield YamlProblem(node.find(["tags"]).line, text)
        return
    if not choice.wildcards:
        for key in ("exclude", "keep"):
            if getattr(choice, key) is not None:
                text = f"{key}: there is no wildcard that it could apply to; leave it out, or write a tag such as '1.*'"
                yield YamlProblem(node.find([key]).line, text)
    if choice.order is not None and choice.keep is None:
        yield YamlProblem(node.find(["order"]).line, "order: it says which tags keep keeps; write keep: and a number too")
    if choice.exclude is not None:
        yield from _excluded(choice, TagSet(tuple(choice.exclude)), node.find(["exclude"]).line)


def _excluded(choice: PublicationKeys, excluded: TagSet, line: int) -> Iterator[YamlProblem]:
    named = next((tag for tag in choice.named if tag in excluded), None)
    if named is not None:
        yield YamlProblem(line, f"exclude: it leaves out {named!r}, which is wanted by name; take it out of one of the two")
    if choice.wildcards:
        try:
            if tag_globs.example(TagSet(choice.wildcards, excluded.take)) is None:
                yield YamlProblem(line, "exclude: it leaves out all tags that the wildcards match; leave it out, or the entry")
        except ValueError as error:
            yield YamlProblem(line, f"exclude: {error}")


def _names(
    choice: PublicationKeys, line: int, name_template: str, taken: dict[str, tuple[int, Reference]]
) -> Iterator[YamlProblem]:
    """Entries that share a name, or whose name is too long."""
    for tag in choice.named:
        reference = Reference(choice.image.reference.registry, choice.image.reference.repository, tag)
        try:
            name = cvmfs_name(reference, name_template)
        except UsageError as error:
            yield YamlProblem(line, f"{error.reason}; choose a shorter tag")
            continue
        first, other = taken.setdefault(name, (line, reference))
        if other is reference:
            continue
        if other == reference:
            yield YamlProblem(line, f"{reference} is in the list already, in line {first}; leave one out")
        else:
            text = f"{reference} would be published as {name}, and so would {other} in line {first}; leave one out"
            yield YamlProblem(line, text)


def _pattern(wild: _Pattern, name_template: str, patterns: dict[str, list[_Pattern]]) -> Iterator[YamlProblem]:
    """A pattern against those before it: no tag may be two patterns' of a repository, no name two repositories'."""
    longest = Reference(wild.reference.registry, wild.reference.repository, "x" * tag_globs.LONGEST_TAG)
    prefix = name_of(longest, name_template).removesuffix(longest.tag or "")
    try:
        safepath.split(f"{prefix}{longest.tag}", UsageError)
    except UsageError:
        yield YamlProblem(wild.line, f"the tags of {wild.reference} could make names that are too long; name each tag")
    earlier = patterns[prefix]
    earlier.append(wild)
    if len(earlier) > _MOST_PATTERNS:
        yield YamlProblem(
            wild.line, f"more than {_MOST_PATTERNS} entries with wildcards for one name; put them together under tags:"
        )
        return
    for other in earlier[:-1]:
        try:
            both = tag_globs.example(wild.tags, other.tags)
        except ValueError as error:
            yield YamlProblem(wild.line, f"{error} (the other is in line {other.line})")
            return
        if both is not None:
            yield YamlProblem(wild.line, _shared(wild, other, both, prefix))
            return


def _shared(wild: _Pattern, other: _Pattern, tag: str, prefix: str) -> str:
    if wild.reference == other.reference:
        one = f"{wild.reference} has a wildcard in line {other.line} already, and both take a tag such as {tag!r}"
        return f"{one}; put them together under tags: in one entry, or exclude: what the other takes"
    both = f"{wild.reference} has tags that would be published as {prefix}TAG, and so has {other.reference} in line {other.line}"
    return f"{both}, such as {tag!r}; leave one out"


def _entries_against_patterns(
    taken: dict[str, tuple[int, Reference]], patterns: dict[str, list[_Pattern]]
) -> Iterator[YamlProblem]:
    """An entry's name and the wildcard of another repository; of its own, the entry wins."""
    for name, (line, reference) in taken.items():
        tag = reference.tag or ""
        for wild in patterns.get(name.removesuffix(tag), ()):
            if wild.reference != _untagged(reference) and tag in wild.tags:
                there = f"so could a tag of {wild.reference}, by the wildcard in line {wild.line}"
                yield YamlProblem(
                    line, f"{reference} would be published as {name}, and {there}; leave one out, or exclude: it there"
                )
                break


def _untagged(reference: Reference) -> Reference:
    return Reference(reference.registry, reference.repository)


def _images(root: YamlNode) -> Iterator[YamlNode]:
    for group in _items(root, "groups"):
        yield from _items(group, "images")


def _items(node: YamlNode, key: str) -> list[YamlNode]:
    found = node.find([key])
    return found.value if found is not node and isinstance(found.value, list) else []
