"""The image list: images.yaml, version 1, into entries and patterns. Pure but for :func:`load`.

The list is changed by people who have other work, so it is refused as a whole or taken as a whole: all problems come at
once, each with its line and what to write instead. ``model.py`` says what may stand in the file.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any

from publisher.contract import reference as references
from publisher.contract.errors import InvalidReferenceError
from publisher.contract.reference import Reference
from publisher.errors import ListError, UsageError
from publisher.images import contradictions, json_schema
from publisher.images.entry import NAME_TEMPLATES, Entry, ImageList, Pattern, cvmfs_name, expand
from publisher.images.list_model import VERSION, ListFile
from publisher.system import yamlfile
from publisher.system.yamlfile import YamlProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from publisher.images.list_model import ListedImage
    from publisher.system.yamlfile import YamlNode

__all__ = ["NAME_TEMPLATES", "Entry", "ImageList", "Pattern", "cvmfs_name", "expand", "load", "parse", "schema", "select"]

_CVMFS_PATH = re.compile(r"^/cvmfs/[^/]+/")


def load(path: Path, name_template: str = NAME_TEMPLATES[0]) -> ImageList:
    """The list at ``path``.

    Raises:
        UsageError: the file cannot be read.
        ListError: as :func:`parse`.
    """
    try:
        content = yamlfile.read(path)
    except OSError as error:
        raise UsageError(
            f"the image list {path} cannot be read: {error.strerror}", hint="--images FILE says where it is"
        ) from None
    return parse(content, str(path), name_template)


def parse(content: bytes, file: str, name_template: str = NAME_TEMPLATES[0]) -> ImageList:
    """A list from its text.

    Args:
        content: the file's bytes.
        file: its name, for messages.
        name_template: one of :data:`NAME_TEMPLATES`.

    Raises:
        ListError: anything is wrong with it; nothing of it is to be used then.
    """
    root, problems = yamlfile.parse(content)
    if root is not None:
        newer = _newer_version(root)
        if newer is not None:
            raise ListError(yamlfile.lines(file, [newer]))
        model, wrong = yamlfile.validate(ListFile, root)
        problems += [*wrong, *contradictions.find(root, name_template)]
        if model is not None and not problems:
            listed = _listed(model, root, name_template)
            if listed.entries or listed.patterns:
                return listed
            problems.append(YamlProblem(root.line, "the list is empty; nothing is ever removed by emptying it"))
    raise ListError(yamlfile.lines(file, problems))


def schema() -> str:
    """The JSON Schema of images.yaml, as the text of its file."""
    return json.dumps(json_schema.schema(ListFile, "images.yaml"), indent=2) + "\n"


def select(entries: Sequence[Entry], wanted: Sequence[str]) -> tuple[Entry, ...]:
    """The entries that are meant, in the list's order; all of them where nothing is named.

    Each of ``wanted`` is a CVMFS name, a path ``/cvmfs/<repository>/<name>``, or an image reference.

    Raises:
        UsageError: some are not in the list.
    """
    if not wanted:
        return tuple(entries)
    by_name = {entry.name: entry for entry in entries}
    by_source = {source: entry for entry in entries for source in (str(entry.reference), _unpinned(entry.reference))}
    chosen: set[str] = set()
    unknown: list[str] = []
    for text in wanted:
        entry = by_name.get(_CVMFS_PATH.sub("", text)) or by_source.get(_whole(text))
        if entry is None:
            unknown.append(text)
        else:
            chosen.add(entry.name)
    if unknown:
        near = list(dict.fromkeys(name for text in unknown for name in _near(text, by_name)))
        hint = f"close to that: {', '.join(near)}" if near else "publisher plan shows all of it"
        raise UsageError(f"not in the image list: {', '.join(unknown)}", hint=hint)
    return tuple(entry for entry in entries if entry.name in chosen)


def _newer_version(root: YamlNode) -> YamlProblem | None:
    """A version of the file format that this program does not know: its other findings would mean nothing."""
    node = root.find(["version"])
    if node is root or not isinstance(node.value, int) or node.value <= VERSION:
        return None
    return YamlProblem(
        node.line, f"version {node.value} is newer than this program, which knows {VERSION}; use a newer publisher"
    )


def _listed(model: ListFile, root: YamlNode, name_template: str) -> ImageList:
    entries: list[Entry] = []
    patterns: list[Pattern] = []
    for number, group in enumerate(model.groups):
        for position, image in enumerate(group.images):
            line = root.find(["groups", number, "images", position]).line
            common = _common(image, model, group.title, line)
            entries += _entries(image, name_template, common)
            if image.wildcards:
                patterns.append(_pattern(image, name_template, common))
    return ImageList(tuple(entries), tuple(patterns))


def _common(image: ListedImage, model: ListFile, group: str, line: int) -> dict[str, Any]:
    """What entries and patterns have alike."""
    return {
        "platforms": tuple(image.platforms or model.defaults.platforms),
        "formats": frozenset(image.formats or model.defaults.formats),
        "owner": image.owner,
        "project": image.project,
        "expires": image.expires,
        "max_size": image.max_size or model.defaults.max_size,
        "private": image.private is not None,
        "group": group,
        "line": line,
    }


def _entries(image: ListedImage, name_template: str, common: dict[str, Any]) -> Iterator[Entry]:
    said = image.image.reference
    for tag in image.named:
        reference = said if said.tag == tag else Reference(said.registry, said.repository, tag)
        yield Entry(cvmfs_name(reference, name_template), reference, **common)


def _pattern(image: ListedImage, name_template: str, common: dict[str, Any]) -> Pattern:
    said = image.image.reference
    return Pattern(
        reference=Reference(said.registry, said.repository),
        tags=image.wildcards,
        exclude=tuple(image.exclude or ()),
        keep=image.keep,
        order=image.order or "version",
        name_template=name_template,
        **common,
    )


def _unpinned(reference: Reference) -> str:
    return str(Reference(reference.registry, reference.repository, reference.tag))


def _whole(text: str) -> str:
    """A reference with everything that its text leaves out; the text itself, where it is none."""
    try:
        return str(references.parse(text))
    except InvalidReferenceError:
        return text


def _near(text: str, known: Iterable[str]) -> list[str]:
    """Up to three names that somebody may have meant."""
    listed = list(known)
    return [name for name in listed if text in name][:3] or difflib.get_close_matches(text, listed)
