"""An images.yaml in the making: groups and entries, each with its line in the file that it comes from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from publisher.images import contradictions, rules, tag_globs
from publisher.images.tag_globs import TagSet
from publisher.system.yamlfile import YamlNode, YamlProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.contract.reference import Reference

_LONGEST_TITLE = 200


@dataclass
class _DraftItem:
    """An entry: ``image``, and what makes it a mapping. ``comments`` stand before it."""

    line: int
    image: str
    comments: list[str]
    tags: list[str] = field(default_factory=list)
    platform: str | None = None

    def node(self) -> YamlNode:
        """As it would be read from a file where it stands in this line."""
        keys = {"image": YamlNode(self.line, self.image)}
        if self.tags:
            keys["tags"] = YamlNode(self.line, [YamlNode(self.line, tag) for tag in self.tags])
        return YamlNode(self.line, keys)

    def text(self) -> str:
        tags = f", tags: [{', '.join(map(json.dumps, self.tags))}]" if self.tags else ""
        platforms = f", platforms: [{self.platform}]" if self.platform else ""
        more = tags + platforms
        return f"{{image: {json.dumps(self.image)}{more}}}" if more else _scalar(self.image)


@dataclass
class _DraftGroup:
    """A group; ``remarks`` are comments before it."""

    title: str
    remarks: list[str]
    items: list[_DraftItem] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)


class Draft:
    """A list that is being written.

    Attributes:
        name_template: how its CVMFS names are made; decides which entries have the same.
        problems: what there is to tell of the file that it comes from.
    """

    def __init__(self, name_template: str) -> None:
        self.name_template = name_template
        self.problems: list[YamlProblem] = []
        self._head: list[str] = []
        self._groups: list[_DraftGroup] = []
        self._wild: dict[Reference, list[_DraftItem]] = {}
        self._tail: list[str] = []

    @property
    def has_images(self) -> bool:
        """Whether it has any entry."""
        return any(group.items for group in self._groups)

    def head(self, comments: Sequence[str]) -> None:
        """Comments for the beginning of the file."""
        self._head += comments

    def begin(self, title: str, remarks: Sequence[str] = ()) -> None:
        """Begin a group; ``remarks`` are comments before it."""
        line = _clean(title)
        self._groups.append(
            _DraftGroup(line[:_LONGEST_TITLE].rstrip(), [*remarks, *([line] if len(line) > _LONGEST_TITLE else [])])
        )

    def end(self, comments: Sequence[str]) -> None:
        """Comments for the end of the file."""
        self._tail += comments

    def comment(self, comments: Sequence[str]) -> None:
        """Comments before the next entry of the group."""
        self._groups[-1].comments += comments

    def add(self, line: int, image: str, platform: str | None = None) -> None:
        """Add an entry to the group: a reference, or one with a wildcard for a tag, that :func:`rules.written` takes.

        Wildcards of one repository that have tags in common become one entry.
        """
        group = self._groups[-1]
        item = _DraftItem(line, image, group.comments, platform=platform)
        group.comments = []
        written = rules.written(image)
        if written.glob is None or not self._joined(item, written.reference, written.glob):
            group.items.append(item)

    def _joined(self, item: _DraftItem, reference: Reference, glob: str) -> bool:
        """Whether the wildcard went to an earlier entry of its repository."""
        earlier = self._wild.setdefault(reference, [])
        same = [other for other in earlier if _overlap(_globs(other), glob)]
        if not same:
            earlier.append(item)
            return False
        first, *others = same
        if glob in _globs(first):
            text = f"{item.image} is in the list already, in line {first.line}; it is not imported twice"
            self.problems.append(YamlProblem(item.line, text))
            return True
        tags = [*_globs(first), *(tag for other in others for tag in _globs(other)), glob]
        first.image, first.tags = item.image.removesuffix(f":{glob}"), list(dict.fromkeys(tags))
        for other in others:
            earlier.remove(other)
            self._drop(other)
        return True

    def _drop(self, item: _DraftItem) -> None:
        for group in self._groups:
            group.items = [other for other in group.items if other is not item]

    def contradictions(self) -> list[YamlProblem]:
        """Leave out what the list cannot have beside what stands before it: entries that are there twice, or share a name."""
        nodes = [YamlNode(1, {"images": YamlNode(1, [item.node() for item in group.items])}) for group in self._groups]
        root = YamlNode(1, {"groups": YamlNode(1, nodes)})
        found = [YamlProblem(one.line, f"not imported: {one.text}") for one in contradictions.find(root, self.name_template)]
        bad = {problem.line for problem in found}
        for group in self._groups:
            group.items = [item for item in group.items if item.line not in bad]
        return found

    def text(self) -> str:
        """The file."""
        lines = [*_comments(self._head), *([""] if self._head else []), "version: 1", "", "groups:"]
        for group in self._groups:
            lines += _comments(group.remarks, "  ")
            if not group.items:
                lines += [*_comments([f"{group.title}: nothing of it was imported", *group.comments], "  "), ""]
                continue
            lines += [f"  - title: {_scalar(group.title)}", "    images:"]
            for item in group.items:
                lines += [*_comments(item.comments, "      "), f"      - {item.text()}"]
            lines += [*_comments(group.comments, "      "), ""]
        lines += _comments(self._tail, "  ")
        return "\n".join(lines).rstrip("\n") + "\n"


def _globs(item: _DraftItem) -> list[str]:
    return item.tags or [rules.written(item.image).glob or ""]


def _overlap(some: Sequence[str], glob: str) -> bool:
    try:
        return tag_globs.example(TagSet(tuple(some)), TagSet((glob,))) is not None
    except ValueError:
        return True  # together in one entry they need not be told apart


def _comments(texts: Sequence[str], indent: str = "") -> list[str]:
    return [f"{indent}# {_clean(text)}".rstrip() for text in texts]


def _clean(text: str) -> str:
    """A line that YAML and a terminal can bear."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _scalar(text: str) -> str:
    """A text as YAML has it: plain where it is read back as it is."""
    try:
        plain = yaml.safe_load(f"- {text}") == [text]
    except (yaml.YAMLError, ValueError):
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)
