"""YAML files that people write: all problems are reported at once, each with its line and what to write instead.

The file is read from the parser's events, not by a loader: each value keeps its line, a key that appears twice is reported (a
loader silently takes the last one), and a hostile file can neither grow nor recurse (aliases, tags and deep nesting are refused).
``yaml.compose`` gives lines too, but it crashes the interpreter on deep nesting where it uses libyaml, and it follows aliases.
Pydantic models define valid values; :func:`validate` turns pydantic's errors into sentences.
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
"""Bytes that a file may have: enough for some 100,000 images."""
_MAX_VALUES = 500_000
_MAX_DEPTH = 12
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser: ten times faster, where it is built in
_RESOLVER: Any = yaml.resolver.Resolver()
_UNPRINTABLE = re.compile("[^\\t\\n\\r\\x20-\\x7e\\x85\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")  # YAML 1.1, 5.1
_STRING = "tag:yaml.org,2002:str"
_INT_LIMIT = 1 << 63  # larger numbers stay text
_EXPECTED = {
    "string_type": "a text",
    "list_type": "a list ('- ' before each)",
    "model_type": "a mapping (key: value)",
    "too_short": "something in the list",
}  # pydantic's error type -> what should be there
_REFUSED = object()
"""The value of a node whose problem has been reported already."""

Model = TypeVar("Model", bound=BaseModel)


class YamlProblem(NamedTuple):
    """A problem of a file: its line (the first is 1), and a text that says what is wrong and what to write instead."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class YamlNode:
    """A value with its line (in a mapping, the line of its key) and, for a scalar, its text in the file."""

    line: int
    value: Any
    text: str = ""

    def plain(self) -> Any:
        """Return the value as Python objects: dictionaries, lists, and scalars as YAML resolves them."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def find(self, location: Iterable[str | int]) -> YamlNode:
        """Return the node at a location (keys and positions), or its nearest ancestor if there is none."""
        node = self
        for step in location:
            try:
                node = node.value[step]
            except (KeyError, IndexError, TypeError):
                break
        return node


def read(path: Path) -> bytes:
    """Return the bytes of a file, up to one more than :func:`parse` accepts. Raises OSError."""
    with path.open("rb") as file:
        return file.read(LARGEST + 1)


def format_problems(file: str, problems: Iterable[YamlProblem]) -> list[str]:
    """Return the problems as ``FILE:LINE: text``, ordered by line."""
    return [f"{file}:{problem.line}: {problem.text}" for problem in sorted(problems)]


def parse(content: bytes) -> tuple[YamlNode | None, list[YamlProblem]]:
    """Return the file's only document and the problems of its YAML; the document is None if it cannot be read any further."""
    if len(content) > LARGEST:
        return None, [YamlProblem(1, f"the file has more than {LARGEST} bytes; split it or make it shorter")]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return None, [YamlProblem(line, f"byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8")]
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        return None, [YamlProblem(line, f"the character {unprintable[0]!r} is not allowed in YAML; delete it")]
    reader = _Reader(text)
    try:
        return reader.document(), reader.problems
    except yaml.MarkedYAMLError as error:
        return None, [*reader.problems, _syntax(error, text)]
    except _UnreadableError as error:
        return None, [*reader.problems, error.problem]


def validate(model: type[Model], node: YamlNode, context: dict[str, Any] | None = None) -> tuple[Model | None, list[YamlProblem]]:
    """Return the model of a document, or None and the reasons why it is not valid; ``context`` is for the model's validators."""
    try:
        return model.model_validate(node.plain(), context=context), []
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            place = node.find(detail["loc"])
            if place.value is not _REFUSED:
                problems.append(YamlProblem(place.line, _explain(model, detail, place)))
        return None, problems


def closest(text: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most similar to a text, None if none is similar."""
    return next(iter(difflib.get_close_matches(text, list(known), n=1)), None)


def quoted(text: str) -> str:
    """Return a text of the author in quotes, cut if it would fill the screen."""
    return repr(text) if len(text) <= 200 else f"{text[:200]!r}…"  # noqa: PLR2004 - longer than any valid reference


def explain(detail: ErrorDetails, node: YamlNode | None = None) -> str:
    """Return what one of pydantic's errors means, without its key; ``node`` is the refused value if it comes from a file."""
    kind, given = detail["type"], detail["input"]
    if given is None:
        return "the value is missing; write one, or remove the key"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "literal_error":
        return f"{quoted(str(given))} is not allowed here; write {detail['ctx']['expected']}"
    if kind == "string_type" and node is not None and isinstance(given, bool | int | float | date):
        return f"YAML reads {node.text[:40]} as {_kind(given)}; write it in quotes: '{node.text[:40]}'"
    if kind in _EXPECTED:
        return f"{_EXPECTED[kind]} is expected here, not {_kind(given)}"
    return detail["msg"][:1].lower() + detail["msg"][1:]


def _explain(model: type[BaseModel], detail: ErrorDetails, node: YamlNode) -> str:
    """Return one of pydantic's errors as a sentence for the author of the file; ``node`` is the refused value."""
    location, kind = detail["loc"], detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(str(location[-1]), _model_at(model, location[:-1]))
    keys = [step for step in location if isinstance(step, str)]
    if kind == "missing":
        return f"the key {keys[-1]!r} is missing here"
    return f"{keys[-1]}: {explain(detail, node)}" if keys else explain(detail, node)


def _kind(value: object) -> str:
    """Return what a value is, in words for people."""
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
    similar = closest(key, known)
    instead = f"write {similar}" if similar is not None else f"the keys here are {', '.join(known)}"
    return f"the key {quoted(key)} is unknown; {instead}"


def _model_at(model: type[BaseModel], location: Iterable[str | int]) -> type[BaseModel]:
    """Return the model of the value at a location below another model."""
    for step in location:
        if isinstance(step, str):
            annotation: Any = _fields(model)[step]
            while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):  # list[M], M | None
                annotation = typing.get_args(annotation)[0]
            model = annotation
    return model


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _syntax(error: yaml.MarkedYAMLError, text: str) -> YamlProblem:
    """Return the parser's error in a text as a problem: its place, and what to write instead where that can be guessed."""
    mark: Any = error.problem_mark
    line = text.split("\n")[mark.line] if mark.line < text.count("\n") + 1 else ""
    advice = _syntax_advice(error, line, mark.column)
    place = f"this is not YAML (column {mark.column + 1})"
    return YamlProblem(mark.line + 1, f"{place}; {advice}" if advice is not None else f"{place}: {error.problem}")


def _syntax_advice(error: yaml.MarkedYAMLError, line: str, column: int) -> str | None:
    """Return what to write instead of a line that is not YAML; None where nobody knows."""
    indent = len(line) - len(line.lstrip())
    first = line[column : column + 1]
    if "\t" in line[:indent] or first == "\t":
        return "there is a tab; indent with spaces only, two for each level"
    if error.context == "while scanning an alias":
        return "put a text that begins with * into quotes: '*'"
    if first and first in "@`%":
        return f"put a text that begins with {first} into quotes"
    if error.context == "while scanning a quoted scalar":
        opened: Any = error.context_mark
        return f"the quote that begins in line {opened.line + 1} has no end"
    words = str(error.problem)  # libyaml's and PyYAML's words differ in their beginnings
    return next((advice.format(indent=indent) for part, advice in _SYNTAX_ADVICE if part in words), None)


_COLON = (
    "a key ends with a colon and a blank (key: value) and is not indented further than the key above; a text with a colon and a "
    "blank in it needs quotes"
)
_INDENTATION = "its indentation ({indent} spaces) is that of no line above; indent what belongs together equally"
_SYNTAX_ADVICE = (
    ("mapping values are not allowed", _COLON),
    ("expected key", _INDENTATION),
    ("'-' indicator", _INDENTATION),
    ("<block end>", _INDENTATION),
    ("<document start>", "its indentation ({indent} spaces) is not that of the first line; indent what belongs together equally"),
    ("expected ':'", "the line above is neither a key with a colon (key: value) nor an item of a list (- value)"),
    ("',' or ']'", "the list that begins with [ is not closed by ]"),
)
"""A part of what the parser says -> what to write instead."""


class _UnreadableError(Exception):
    """A problem after which the rest of the file cannot be read."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.problem = YamlProblem(line, text)


class _Reader:
    """A reader that makes nodes from the parser's events; ``problems`` collects what does not stop it."""

    def __init__(self, text: str) -> None:
        self.problems: list[YamlProblem] = []
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._values = 0

    def document(self) -> YamlNode:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise _UnreadableError(1, "the file is empty")
        root = self._node(next(self._events), 1, 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _UnreadableError(event.start_mark.line + 1, "a second document begins here ('---'); remove one")
        return root

    def _node(self, event: Any, line: int, depth: int) -> YamlNode:
        self._values += 1
        if self._values > _MAX_VALUES or depth > _MAX_DEPTH:
            limit = f"is nested more than {_MAX_DEPTH} deep" if depth > _MAX_DEPTH else f"has more than {_MAX_VALUES} values"
            raise _UnreadableError(event.start_mark.line + 1, f"the file {limit}; make it simpler")
        if isinstance(event, yaml.AliasEvent):
            instead = f"write out the value, or '*{event.anchor}' in quotes if it is a wildcard"
            return self._refuse(line, f"aliases (*{event.anchor}) are not allowed; {instead}")
        if isinstance(event, yaml.ScalarEvent):
            value: Any = _scalar(event.value) if event.implicit[0] and event.tag is None else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = [self._node(item, item.start_mark.line + 1, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            value = self._mapping(depth)
        if event.tag is not None:
            return self._refuse(line, f"tags ({event.tag}) are not allowed; remove it, and put the text in quotes")
        return YamlNode(line, value, event.value if isinstance(event, yaml.ScalarEvent) else "")

    def _mapping(self, depth: int) -> dict[str, YamlNode]:
        values: dict[str, YamlNode] = {}
        for event in self._until(yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            key = self._key(event, line, depth)
            value = self._node(next(self._events), line, depth + 1)
            if key is not None and key in values:
                text = f"the key {quoted(key)} appears a second time; the first is in line {values[key].line}; remove one"
                self.problems.append(YamlProblem(line, text))
            elif key is not None:
                values[key] = value
        return values

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
    """Return a plain scalar as YAML resolves it, or its text if it only looks like a date or is a number beyond 64 bits."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if tag == _STRING:
        return text
    try:
        value = yaml.constructor.SafeConstructor().construct_object(yaml.ScalarNode(tag, text))
    except (ValueError, OverflowError, yaml.YAMLError):
        return text
    return text if isinstance(value, int) and abs(value) >= _INT_LIMIT else value
