"""YAML files that people write: every problem at once, each with its line and what to write instead.

The file is read by the parser's events, not by its loader: so each value keeps its line, a key that stands twice is seen
(YAML takes the last one silently), and nothing a stranger sends can grow or recurse (aliases, tags and deep nesting are
refused). What the values must be is said by pydantic models; :func:`validate` turns its findings into sentences.
"""

from __future__ import annotations

import difflib
import re
import typing
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pydantic_core import ErrorDetails

LARGEST = 8 << 20
"""Bytes of a file: some 100,000 images."""
_MOST_VALUES = 500_000
_DEEPEST = 12
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser: ten times faster, where it is built in
_RESOLVER: Any = yaml.resolver.Resolver()
_UNPRINTABLE = re.compile("[^\\t\\n\\r\\x20-\\x7e\\x85\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")  # YAML 1.1, 5.1
_STRING = "tag:yaml.org,2002:str"
_BEYOND = 1 << 63
_WANTED = {
    "string_type": "a text",
    "list_type": "a list ('- ' before each)",
    "model_type": "a mapping (key: value)",
    "too_short": "something in the list",
}  # pydantic's words for what stands at the wrong place
_REFUSED = object()
"""The value of what a problem has been reported for already."""

Model = TypeVar("Model", bound=BaseModel)


class YamlProblem(NamedTuple):
    """Where (lines count from 1), and what is wrong and what to write instead."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class YamlNode:
    """A value: its line (its key's, in a mapping), and for a scalar the text that stands there."""

    line: int
    value: Any
    text: str = ""

    def plain(self) -> Any:
        """The value as Python has it: dictionaries, lists, and what YAML makes of scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def find(self, location: Iterable[str | int]) -> YamlNode:
        """The node at a location (keys and positions), or the nearest one above it."""
        node = self
        for step in location:
            try:
                node = node.value[step]
            except (KeyError, IndexError, TypeError):
                break
        return node


def read(path: Path) -> bytes:
    """The bytes of a file, one more than :func:`parse` takes at the most. Raises OSError."""
    with path.open("rb") as file:
        return file.read(LARGEST + 1)


def lines(file: str, problems: Iterable[YamlProblem]) -> list[str]:
    """The problems as ``FILE:LINE: text``, by line."""
    return [f"{file}:{problem.line}: {problem.text}" for problem in sorted(problems)]


def parse(content: bytes) -> tuple[YamlNode | None, list[YamlProblem]]:
    """The file's one document, and what is wrong with it as YAML; None where nothing else can be said of it."""
    if len(content) > LARGEST:
        return None, [YamlProblem(1, f"the file has more than {LARGEST} bytes; nothing that long is read")]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return None, [YamlProblem(line, f"byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8")]
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        return None, [YamlProblem(line, f"the character {unprintable[0]!r} cannot stand in YAML; delete it")]
    reader = _Reader(text)
    try:
        return reader.document(), reader.problems
    except yaml.MarkedYAMLError as error:
        return None, [*reader.problems, _syntax(error)]
    except _HopelessError as error:
        return None, [*reader.problems, error.problem]


def validate(model: type[Model], node: YamlNode, context: dict[str, Any] | None = None) -> tuple[Model | None, list[YamlProblem]]:
    """What the model makes of a document, and why it does not where it does not; ``context`` is for its validators."""
    try:
        return model.model_validate(node.plain(), context=context), []
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            found = node.find(detail["loc"])
            if found.value is not _REFUSED:
                problems.append(YamlProblem(found.line, _explain(model, detail, found)))
        return None, problems


def close(text: str, known: Iterable[str]) -> str | None:
    """The known word that was meant, in all likelihood."""
    return next(iter(difflib.get_close_matches(text, list(known), n=1)), None)


def quoted(text: str) -> str:
    """A text of the author's in quotes, cut where it would fill the screen."""
    return repr(text) if len(text) <= 200 else f"{text[:200]!r}…"  # noqa: PLR2004 - longer than any sound reference


def why(detail: ErrorDetails, node: YamlNode | None = None) -> str:
    """One of pydantic's findings without its key: what is wrong; ``node`` is what stands there, if it is in a file."""
    kind, given = detail["type"], detail["input"]
    if given is None:
        return "nothing stands here; write a value, or leave the key out"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "literal_error":
        return f"{quoted(str(given))} stands here; write {detail['ctx']['expected']}"
    if kind == "string_type" and node is not None and isinstance(given, bool | int | float | date):
        return f"YAML reads {node.text[:40]} as {_kind(given)}; write it in quotes: '{node.text[:40]}'"
    if kind in _WANTED:
        return f"{_WANTED[kind]} is expected here, not {_kind(given)}"
    return detail["msg"][:1].lower() + detail["msg"][1:]


def _explain(model: type[BaseModel], detail: ErrorDetails, node: YamlNode) -> str:
    """One of pydantic's findings as a sentence for the file's author; ``node`` is what stands there."""
    location, kind = detail["loc"], detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(str(location[-1]), _model_at(model, location[:-1]))
    keys = [step for step in location if isinstance(step, str)]
    if kind == "missing":
        return f"the key {keys[-1]!r} is missing here"
    return f"{keys[-1]}: {why(detail, node)}" if keys else why(detail, node)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if value == []:
        return "an empty list"
    words = {
        int: "a number",
        float: "a number",
        date: "a date",
        datetime: "a time",
        str: "a text",
        list: "a list",
        dict: "a mapping",
    }
    return words.get(type(value), "nothing")


def _unknown_key(key: str, model: type[BaseModel]) -> str:
    known = list(_fields(model))
    meant = close(key, known)
    instead = f"write {meant}" if meant is not None else f"the keys here are {', '.join(known)}"
    return f"the key {quoted(key)} is unknown; {instead}"


def _model_at(model: type[BaseModel], location: Iterable[str | int]) -> type[BaseModel]:
    """The model of what stands at a location below another."""
    for step in location:
        if isinstance(step, str):
            annotation: Any = _fields(model)[step]
            while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):  # list[M], M | None
                annotation = typing.get_args(annotation)[0]
            model = annotation
    return model


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _syntax(error: yaml.MarkedYAMLError) -> YamlProblem:
    """What the parser says, in one line and with its place."""
    mark: Any = error.problem_mark
    if error.context == "while scanning an alias":
        text = f"this is no YAML (column {mark.column + 1}); a text that begins with * goes into quotes: '*'"
        return YamlProblem(mark.line + 1, text)
    return YamlProblem(mark.line + 1, f"this is no YAML: {error.problem} (column {mark.column + 1})")


class _HopelessError(Exception):
    """Nothing more can be said of the file than this problem."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.problem = YamlProblem(line, text)


class _Reader:
    """Nodes from the parser's events. ``problems`` takes what does not keep the rest from being looked at."""

    def __init__(self, text: str) -> None:
        self.problems: list[YamlProblem] = []
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._values = 0

    def document(self) -> YamlNode:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise _HopelessError(1, "the file is empty")
        root = self._node(next(self._events), 1, 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _HopelessError(event.start_mark.line + 1, "a second document begins here ('---'); leave one")
        return root

    def _node(self, event: Any, line: int, depth: int) -> YamlNode:
        self._values += 1
        if self._values > _MOST_VALUES or depth > _DEEPEST:
            what = f"nested more than {_DEEPEST} deep" if depth > _DEEPEST else f"more than {_MOST_VALUES} values"
            raise _HopelessError(event.start_mark.line + 1, f"the file is {what}: no such file is read further")
        if isinstance(event, yaml.AliasEvent):
            text = f"write out what it stands for, or '*{event.anchor}' in quotes if it is a wildcard"
            return self._refuse(line, f"aliases (*{event.anchor}) are not followed; {text}")
        if isinstance(event, yaml.ScalarEvent):
            value: Any = _scalar(event.value) if event.implicit[0] and event.tag is None else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = [self._node(item, item.start_mark.line + 1, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            value = self._mapping(depth)
        if event.tag is not None:
            return self._refuse(line, f"tags ({event.tag}) are not known here; leave it out, and put the text in quotes")
        return YamlNode(line, value, event.value if isinstance(event, yaml.ScalarEvent) else "")

    def _mapping(self, depth: int) -> dict[str, YamlNode]:
        found: dict[str, YamlNode] = {}
        for event in self._until(yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            key = self._key(event, line, depth)
            value = self._node(next(self._events), line, depth + 1)
            if key is not None and key in found:
                text = f"the key {quoted(key)} stands here a second time, the first is in line {found[key].line}; leave one out"
                self.problems.append(YamlProblem(line, text))
            elif key is not None:
                found[key] = value
        return found

    def _key(self, event: Any, line: int, depth: int) -> str | None:
        if isinstance(event, yaml.ScalarEvent) and event.tag is None:
            return str(event.value)
        self._node(event, line, depth + 1)
        self.problems.append(YamlProblem(line, "a key must be a plain word"))
        return None

    def _until(self, end: type) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _refuse(self, line: int, text: str) -> YamlNode:
        self.problems.append(YamlProblem(line, text))
        return YamlNode(line, _REFUSED)


def _scalar(text: str) -> Any:
    """What YAML makes of a plain scalar; the text itself, where it looks like a date or a number and is none of this world."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if tag == _STRING:
        return text
    try:
        value = yaml.constructor.SafeConstructor().construct_object(yaml.ScalarNode(tag, text))
    except (ValueError, OverflowError, yaml.YAMLError):
        return text
    return text if isinstance(value, int) and abs(value) >= _BEYOND else value
