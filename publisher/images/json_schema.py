"""The JSON Schema of images.yaml for editors: the schemas of single values, and the whole schema made from the data model.

The schema checks only the form of values, so :func:`publisher.images.reader.parse` refuses more. Whatever the schema refuses is
refused there too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from publisher.contract.conditions import ARCHITECTURES
from publisher.images import tag_patterns

if TYPE_CHECKING:
    from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_PORT = ":[0-9]{1,5}"
_REGISTRY = f"(?:localhost(?:{_PORT})?|{_LABEL}(?:\\.{_LABEL})+(?:{_PORT})?|{_LABEL}{_PORT})"
_PART = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = f"(?:docker://)?(?:{_REGISTRY}/)?{_PART}(?:/{_PART})*"
_TAG = f"[A-Za-z0-9_*?\\[][A-Za-z0-9_.*?\\[\\]!-]{{0,{tag_patterns.LONGEST_TAG - 1}}}"
_DIGEST = "@sha256:[0-9a-f]{64}"
_WILDCARD = "[*?\\[]"

_SIF_PATH = "(?:/[A-Za-z0-9._~+=,-]+)+\\.sif"
_SIF_URL = f"(?:osdf://{_SIF_PATH}|https://{_LABEL}(?:\\.{_LABEL})*(?:{_PORT})?{_SIF_PATH})"
_IN_REGISTRY = f"(?:oras://)?{_REPOSITORY}(?::{_TAG}(?:{_DIGEST})?)?"

IMAGE = {"type": "string", "pattern": f"^(?:{_IN_REGISTRY}|{_SIF_URL})$"}
NAME = {"type": "string", "pattern": f"^(?:{_REGISTRY}/)?{_PART}(?:/{_PART})*:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}$"}
SHA256 = {"type": "string", "pattern": "^(?:sha256:)?[0-9a-f]{64}$"}
TAG_OR_PATTERN = {"type": "string", "pattern": f"^{_TAG}$"}
PLATFORM = {"type": "string", "pattern": f"^linux/(?:{'|'.join(ARCHITECTURES)})(?:/v[0-9]{{1,2}})?$"}
_BOUND = "(?:cuda|capability|memory) *(?:>=|<) *[0-9][0-9a-zA-Z. ]*"
_CONDITION = f"(?:(?:{'|'.join(ARCHITECTURES)})(?:/v[0-9]{{1,2}})?|x86-64-v[234]|(?:(?:amd|intel|nvidia)-)?gpu|{_BOUND})"
CONDITIONS = {"type": "string", "pattern": f"^ *{_CONDITION} *(?:, *{_CONDITION} *)*$"}
DATE = {"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
_UNITS = "[kKmMgGtT]?[iI]?[bB]"
SIZE = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": f"^[0-9]{{1,15}}(?:\\.[0-9]{{1,6}})? ?(?:{_UNITS})?$"},
    ]
}
PUBLIC_KEY = {"type": "string", "pattern": "^-----BEGIN PUBLIC KEY-----"}
SIGNER: dict[str, Any] = {"allOf": [{"oneOf": [{"required": ["identity", "issuer"]}, {"required": ["public_key"]}]}]}


def allow_plain_reference(mapping: dict[str, Any]) -> None:
    """Change the schema of an entry's mapping to also allow a plain reference, and add which keys need other keys."""
    reference = {"description": mapping["properties"]["image"]["description"], **IMAGE}
    entry = {"description": mapping.pop("description"), "anyOf": [reference, {**mapping, "allOf": _CONDITIONS}]}
    mapping.clear()
    mapping.update(entry)


def _if_present(key: str, then: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"required": [key]}, "then": then}


_HAS_TAG_PATTERN = {
    "anyOf": [
        {"required": ["tags"], "properties": {"tags": {"contains": {"type": "string", "pattern": _WILDCARD}}}},
        {"properties": {"image": {"pattern": _WILDCARD}}},
    ]
}
_CONDITIONS = [
    _if_present("variants", {"not": {"required": ["tags"]}}),
    _if_present("tags", {"properties": {"image": {"pattern": f"^{_REPOSITORY}$"}}}),
    _if_present("keep", _HAS_TAG_PATTERN),
    _if_present("exclude", _HAS_TAG_PATTERN),
    _if_present("order", {"required": ["keep"]}),
    _if_present("require", {"required": ["signed_by"]}),
    _if_present("signed_by", {"required": ["require"]}),
]


def schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """Return the JSON Schema of a file that a model describes."""
    simplified: dict[str, Any] = _simplify(model.model_json_schema())
    return {"$schema": DIALECT, "title": title, **simplified}


def _simplify(part: Any) -> Any:
    """Return a schema without pydantic's generated titles and without the null alternative of optional values."""
    if isinstance(part, list):
        return [_simplify(value) for value in part]
    if not isinstance(part, dict):
        return part
    result = {key: _simplify(value) for key, value in part.items() if not _is_redundant(key, value)}
    alternatives = [schema for schema in result.get("anyOf", ()) if schema != {"type": "null"}]
    if len(alternatives) > 1:
        return result | {"anyOf": alternatives}
    return {key: value for key, value in result.items() if key != "anyOf"} | dict(*alternatives)


def _is_redundant(key: str, value: object) -> bool:
    return (key == "title" and isinstance(value, str)) or (key == "default" and value is None)
