"""A draft of an images.yaml: groups and entries, each with its line in the imported file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from publisher.images import contradictions, rules, tag_patterns
from publisher.images.tag_patterns import TagSet
from publisher.system.yamlfile import YamlNode, YamlProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.contract.reference import Reference

_MAX_TITLE = 200


@dataclass
class _DraftEntry:
    """An entry of the draft.

    Attributes:
        line: its line in the imported file.
        image: the value of ``image``.
        comments: comment lines before the entry.
        tags: the values of ``tags``, empty for no such key.
        platform: the only platform, None for the list's default.
    """

    line: int
    image: str
    comments: list[str]
    tags: list[str] = field(default_factory=list)
    platform: str | None = None

    def to_node(self) -> YamlNode:
        """Return the entry as if it had been read from a YAML file, at the line of the imported file."""
        keys = {"image": YamlNode(self.line, self.image)}
        if self.tags:
            keys["tags"] = YamlNode(self.line, [YamlNode(self.line, tag) for tag in self.tags])
        return YamlNode(self.line, keys)

    def to_text(self) -> str:
        """Return the entry in YAML."""
        tags = f", tags: [{', '.join(map(json.dumps, self.tags))}]" if self.tags else ""
        platforms = f", platforms: [{self.platform}]" if self.platform else ""
        more = tags + platforms
        return f"{{image: {json.dumps(self.image)}{more}}}" if more else _scalar(self.image)


@dataclass
class _DraftGroup:
    """A group of the draft.

    Attributes:
        title: its title.
        remarks: comment lines before the group.
        entries: its entries.
        comments: comment lines before the next entry that is added.
    """

    title: str
    remarks: list[str]
    entries: list[_DraftEntry] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)


class Draft:
    """A list that is being written.

    Attributes:
        name_template: the template of its CVMFS names, which decides whether two entries have the same name.
        problems: the problems of the imported file.
    """

    def __init__(self, name_template: str) -> None:
        self.name_template = name_template
        self.problems: list[YamlProblem] = []
        self._head: list[str] = []
        self._groups: list[_DraftGroup] = []
        self._pattern_entries: dict[Reference, list[_DraftEntry]] = {}
        self._tail: list[str] = []

    @property
    def has_images(self) -> bool:
        """Whether the draft has any entry."""
        return any(group.entries for group in self._groups)

    def add_head(self, comments: Sequence[str]) -> None:
        """Add comments to the beginning of the file."""
        self._head += comments

    def begin_group(self, title: str, remarks: Sequence[str] = ()) -> None:
        """Begin a group; ``remarks`` are comments before it."""
        line = _clean(title)
        long_title = [line] if len(line) > _MAX_TITLE else []
        self._groups.append(_DraftGroup(line[:_MAX_TITLE].rstrip(), [*remarks, *long_title]))

    def add_tail(self, comments: Sequence[str]) -> None:
        """Add comments to the end of the file."""
        self._tail += comments

    def add_comments(self, comments: Sequence[str]) -> None:
        """Add comments before the next entry of the group."""
        self._groups[-1].comments += comments

    def add_image(self, line: int, image: str, platform: str | None = None) -> None:
        """Add an entry to the group. Entries of one repository with overlapping tag patterns become one entry.

        Args:
            line: its line in the imported file.
            image: a reference, or one with a tag pattern, that :func:`rules.parse_image` accepts.
            platform: the only platform, None for the list's default.
        """
        group = self._groups[-1]
        entry = _DraftEntry(line, image, group.comments, platform=platform)
        group.comments = []
        written = rules.parse_image(image)
        if written.tag_pattern is None or not self._combine(entry, written.reference, written.tag_pattern):
            group.entries.append(entry)

    def _combine(self, entry: _DraftEntry, reference: Reference, pattern: str) -> bool:
        """Add a tag pattern to an earlier entry of the repository that overlaps it; return whether there is one."""
        earlier = self._pattern_entries.setdefault(reference, [])
        overlapping = [other for other in earlier if _overlap(_patterns(other), pattern)]
        if not overlapping:
            earlier.append(entry)
            return False
        first, *others = overlapping
        if pattern in _patterns(first):
            text = f"{entry.image} is already listed in line {first.line}; it is not imported twice"
            self.problems.append(YamlProblem(entry.line, text))
            return True
        tags = [*_patterns(first), *(tag for other in others for tag in _patterns(other)), pattern]
        first.image, first.tags = entry.image.removesuffix(f":{pattern}"), list(dict.fromkeys(tags))
        for other in others:
            earlier.remove(other)
            self._remove(other)
        return True

    def _remove(self, entry: _DraftEntry) -> None:
        for group in self._groups:
            group.entries = [other for other in group.entries if other is not entry]

    def remove_contradictions(self) -> list[YamlProblem]:
        """Remove the entries that contradict earlier ones, such as duplicates and equal names; return why."""
        groups = [[entry.to_node() for entry in group.entries] for group in self._groups]
        nodes = [YamlNode(1, {"images": YamlNode(1, entries)}) for entries in groups]
        root = YamlNode(1, {"groups": YamlNode(1, nodes)})
        found = contradictions.find(root, self.name_template)
        problems = [YamlProblem(problem.line, f"not imported: {problem.text}") for problem in found]
        lines = {problem.line for problem in problems}
        for group in self._groups:
            group.entries = [entry for entry in group.entries if entry.line not in lines]
        return problems

    def to_text(self) -> str:
        """Return the text of the file."""
        lines = [*_comments(self._head), *([""] if self._head else []), "version: 1", "", "groups:"]
        for group in self._groups:
            lines += _comments(group.remarks, "  ")
            if not group.entries:
                lines += [*_comments([f"{group.title}: none of its images were imported", *group.comments], "  "), ""]
                continue
            lines += [f"  - title: {_scalar(group.title)}", "    images:"]
            for entry in group.entries:
                lines += [*_comments(entry.comments, "      "), f"      - {entry.to_text()}"]
            lines += [*_comments(group.comments, "      "), ""]
        lines += _comments(self._tail, "  ")
        return "\n".join(lines).rstrip("\n") + "\n"


def _patterns(entry: _DraftEntry) -> list[str]:
    return entry.tags or [rules.parse_image(entry.image).tag_pattern or ""]


def _overlap(patterns: Sequence[str], pattern: str) -> bool:
    try:
        return tag_patterns.shortest_common_tag(TagSet(tuple(patterns)), TagSet((pattern,))) is not None
    except ValueError:
        return True  # in one entry, overlapping patterns do no harm


def _comments(texts: Sequence[str], indent: str = "") -> list[str]:
    return [f"{indent}# {_clean(text)}".rstrip() for text in texts]


def _clean(text: str) -> str:
    """Return the text as one line without unprintable characters, which YAML and terminals do not allow."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _scalar(text: str) -> str:
    """Return a text as a YAML scalar, quoted only if YAML would otherwise read something else."""
    try:
        plain = yaml.safe_load(f"- {text}") == [text]
    except (yaml.YAMLError, ValueError):
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)
