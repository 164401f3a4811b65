"""The JSON Schema of images.yaml: it is up to date, and agrees with the parser on typical lists and mistakes."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from publisher.errors import ListError
from publisher.images import reader
from tests.support.checkout import ROOT
from tests.support.registries.cosign import PlainKey

DIGEST = "sha256:" + "a" * 64
PEM = PlainKey().pem.replace("\n", "\\n")
SCHEMA = json.loads(reader.schema())


class _EditorsLoader(yaml.SafeLoader):
    """A YAML loader like that of editors, which read dates as text, because the core schema of YAML 1.2 has no dates."""


_EditorsLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def valid(text: str) -> bool:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return bool(validator.is_valid(yaml.load(text, Loader=_EditorsLoader)))  # noqa: S506 - a safe loader's subclass


def parsed(text: str) -> bool:
    try:
        reader.parse(text.encode(), "images.yaml")
    except ListError:
        return False
    return True


def listed(entry: str) -> str:
    return f"version: 1\ngroups: [{{title: Some, images: [{entry}]}}]\n"


def test_the_schema_in_the_repository_is_current() -> None:
    assert (ROOT / "images.schema.json").read_text() == reader.schema(), "publisher schema > images.schema.json"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_repositorys_own_list_is_valid_and_names_the_schema() -> None:
    text = (ROOT / "images.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=images.schema.json\n")
    assert valid(text)


def _values(part: Any) -> list[tuple[str, Any]]:
    """Return all keys with their schemas."""
    if isinstance(part, list):
        return [one for value in part for one in _values(value)]
    if not isinstance(part, dict):
        return []
    own = list(part["properties"].items()) if "required" in part or "additionalProperties" in part else []
    return own + [one for key, value in part.items() if key != "allOf" for one in _values(value)]


def test_every_key_has_a_description() -> None:
    keys = _values(SCHEMA)
    assert {key for key, _ in keys} >= {"version", "defaults", "groups", "title", "images", "image", "tags", "keep", "private"}
    assert [key for key, schema in keys if not schema.get("description")] == []


@pytest.mark.parametrize(
    "entry",
    [
        "debian",
        "'debian:12'",
        "'docker://ghcr.io/x/y:1'",
        "'localhost:5000/x:1'",
        f"'a/b:1@{DIGEST}'",
        "'gromacs/gromacs:*'",
        "'a/b:[12]?.*'",
        "{image: a/b, tags: ['1.*', latest], exclude: ['*-rc*'], keep: 3, order: version}",
        "{image: 'a/b:1.*', exclude: ['1.0'], keep: 1}",
        "{image: 'a:1', platforms: [linux/amd64, linux/arm/v7], formats: [sif], owner: A, project: B, expires: 2027-01-31}",
        "{image: 'a:1', max_size: 20 GB, private: allowed}",
        "{image: 'a:1', max_size: 1.5 GiB}",
        "{image: 'a:1', max_size: 1000}",
        "{image: 'a:1', require: signed, signed_by: {identity: me@example.org, issuer: 'https://login.example.org'}}",
        f"{{image: 'a:1', require: signed, signed_by: {{public_key: \"{PEM}\"}}}}",
    ],
)
def test_sound_entries_are_valid(entry: str) -> None:
    assert parsed(listed(entry))
    assert valid(listed(entry))


@pytest.mark.parametrize(
    "entry",
    [
        "3.10",
        "[a]",
        "''",
        "'HTC/x'",
        "'debian: 12'",
        "'debian:12 '",
        "'https://ghcr.io/x/y:1'",
        "'../x:1'",
        "'.images/x:1'",
        "'a/.arch:1'",
        "'a*/b:1'",
        "'a/b:'",
        f"'a/b@{DIGEST}'",
        "'a/b:1@sha256:12'",
        "{}",
        "{images: 'a:1'}",
        "{image: 'a:1', require: signed}",
        "{image: 'a:1', require: verified, signed_by: {identity: me@example.org, issuer: 'https://login.example.org'}}",
        "{image: 'a:1', signed_by: {identity: me@example.org, issuer: 'https://login.example.org'}}",
        "{image: 'a:1', require: signed, signed_by: {identity: me@example.org}}",
        "{image: 'a:1', require: signed, signed_by: {}}",
        "{image: 'a:1', require: signed, signed_by: me@example.org}",
        "{image: 'a:1', require: signed, signed_by: {key: MFkw}}",
        "{image: 'a:1', require: signed, signed_by: {public_key: MFkw}}",
        f"{{image: 'a:1', require: signed, signed_by: {{public_key: \"{PEM}\", identity: me, issuer: 'https://a.example.org'}}}}",
        "{image: 'a:1', platfroms: [linux/amd64]}",
        "{image: 'a:1', platforms: [linux/x86_64]}",
        "{image: 'a:1', platforms: linux/amd64}",
        "{image: 'a:1', platforms: []}",
        "{image: 'a:1', formats: [tar]}",
        "{image: 'a:1', owner: 12}",
        "{image: 'a:1', owner: ''}",
        "{image: 'a:1', expires: 31.1.2027}",
        "{image: 'a:1', max_size: big}",
        "{image: 'a:1', max_size: 0}",
        "{image: 'a:1', private: true}",
        "{image: 'a:1', private: }",
        "{image: 'a:1', tags: ['1.*']}",
        "{image: a, tags: '1.*'}",
        "{image: a, tags: ['-x']}",
        "{image: 'a:1', keep: 3}",
        "{image: a, tags: ['1'], keep: 3}",
        "{image: 'a:1', exclude: ['1']}",
        "{image: 'a:*', keep: 0}",
        "{image: 'a:*', order: name}",
        "{image: 'a:*', keep: 1, order: age}",
    ],
)
def test_typical_mistakes_are_refused_by_both(entry: str) -> None:
    assert not parsed(listed(entry))
    assert not valid(listed(entry))


@pytest.mark.parametrize(
    "text",
    [
        "groups: []",
        "version: 2\ngroups: []",
        "version: 1\ngroups: [{images: ['a:1']}]",
        "version: 1\ngroups: [{title: A, images: ['a:1'], owner: B}]",
        "version: 1\ngroup: []",
        "version: 1\ndefaults: {platform: [linux/amd64]}\ngroups: [{title: A, images: ['a:1']}]",
        "- debian:12",
    ],
)
def test_files_that_are_wrong_as_a_whole_are_refused_by_both(text: str) -> None:
    assert not parsed(text)
    assert not valid(text)


_PARTS = st.from_regex(re.compile(r"[a-z0-9]{1,3}([._-][a-z0-9]{1,2})?", re.ASCII), fullmatch=True)
_REFERENCES = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "docker://", "ghcr.io/", "host:5000/", "localhost/", "127.0.0.1:5000/"]),
    st.lists(_PARTS, min_size=1, max_size=3).map("/".join),
    st.sampled_from(["", ":1.2-py3_X", ":*", ":[!a]?", ":v"]),
    st.sampled_from(["", f"@{DIGEST}"]),
)


@given(_REFERENCES)
def test_whatever_the_parser_takes_is_valid(reference: str) -> None:
    if parsed(listed(f"'{reference}'")):
        assert valid(listed(f"'{reference}'"))


def test_the_documentation_has_every_key() -> None:
    text = (ROOT / "docs/images.md").read_text()
    assert [key for key, _ in _values(SCHEMA) if f"`{key}`" not in text and f"{key}:" not in text] == []
