"""The JSON Schema of images.yaml, for editors: what single values look like, and the whole made of the models.

A schema says less than :func:`publisher.images.reader.parse`: it knows shapes, and no meanings. What it refuses is refused there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from publisher.images import tag_globs
from publisher.images.rules import ARCHITECTURES

if TYPE_CHECKING:
    from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_PORT = ":[0-9]{1,5}"
_REGISTRY = f"(?:localhost(?:{_PORT})?|{_LABEL}(?:\\.{_LABEL})+(?:{_PORT})?|{_LABEL}{_PORT})"
_PART = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = f"(?:docker://)?(?:{_REGISTRY}/)?{_PART}(?:/{_PART})*"
_TAG = f"[A-Za-z0-9_*?\\[][A-Za-z0-9_.*?\\[\\]!-]{{0,{tag_globs.LONGEST_TAG - 1}}}"
_DIGEST = "@sha256:[0-9a-f]{64}"
_WILDCARD = "[*?\\[]"

IMAGE = {"type": "string", "pattern": f"^{_REPOSITORY}(?::{_TAG}(?:{_DIGEST})?)?$"}
TAG_OR_GLOB = {"type": "string", "pattern": f"^{_TAG}$"}
PLATFORM = {"type": "string", "pattern": f"^linux/(?:{'|'.join(ARCHITECTURES)})(?:/v[0-9]{{1,2}})?$"}
DAY = {"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
_UNITS = "[kKmMgGtT]?[iI]?[bB]"
SIZE = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": f"^[0-9]{{1,15}}(?:\\.[0-9]{{1,6}})? ?(?:{_UNITS})?$"},
    ]
}


def entry(mapping: dict[str, Any]) -> None:
    """Make the schema of an entry's mapping that of an entry: it may be a reference alone, and some keys want others."""
    reference = {"description": mapping["properties"]["image"]["description"], **IMAGE}
    whole = {"description": mapping.pop("description"), "anyOf": [reference, {**mapping, "allOf": _CONDITIONS}]}
    mapping.clear()
    mapping.update(whole)


def _when(key: str, then: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"required": [key]}, "then": then}


_HAS_WILDCARD = {
    "anyOf": [
        {"required": ["tags"], "properties": {"tags": {"contains": {"type": "string", "pattern": _WILDCARD}}}},
        {"properties": {"image": {"pattern": _WILDCARD}}},
    ]
}
_CONDITIONS = [
    _when("tags", {"properties": {"image": {"pattern": f"^{_REPOSITORY}$"}}}),
    _when("keep", _HAS_WILDCARD),
    _when("exclude", _HAS_WILDCARD),
    _when("order", {"required": ["keep"]}),
]


def schema(file: type[BaseModel], where: str) -> dict[str, Any]:
    """The JSON Schema of a file that a model describes; ``where`` is its title."""
    made: dict[str, Any] = _plain(file.model_json_schema())
    return {"$schema": DIALECT, "title": where, **made}


def _plain(part: Any) -> Any:
    """A schema without what pydantic says of all values: titles made of the keys, and null for what may be left out."""
    if isinstance(part, list):
        return [_plain(value) for value in part]
    if not isinstance(part, dict):
        return part
    kept = {key: _plain(value) for key, value in part.items() if not _says_nothing(key, value)}
    some = [one for one in kept.get("anyOf", ()) if one != {"type": "null"}]
    return kept | {"anyOf": some} if len(some) > 1 else {key: kept[key] for key in kept if key != "anyOf"} | dict(*some)


def _says_nothing(key: str, value: object) -> bool:
    return (key == "title" and isinstance(value, str)) or (key == "default" and value is None)
