"""Parsing of images.yaml, version 1, into entries and patterns. Only :func:`load` reads a file.

A list is accepted or refused as a whole: all problems are reported at once, each with its line and what to write instead.
``list_model.py`` defines what the file may contain.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any

from publisher.contract.errors import InvalidReferenceError
from publisher.errors import ListError, UsageError
from publisher.images import contradictions, families, json_schema, sif_entries, sif_sources
from publisher.images.entry import NAME_TEMPLATES, Entry, ImageList, Pattern, cvmfs_name, expand
from publisher.images.list_model import VERSION, ListFile
from publisher.images.signer import RequiredSigner
from publisher.system import yamlfile
from publisher.system.yamlfile import YamlProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from publisher.contract.reference import Reference
    from publisher.images.list_model import ListedImage, ListedSigner
    from publisher.system.yamlfile import YamlNode

__all__ = ["NAME_TEMPLATES", "Entry", "ImageList", "Pattern", "cvmfs_name", "expand", "load", "parse", "schema", "select"]

_CVMFS_PATH = re.compile(r"^/cvmfs/[^/]+/")


def load(path: Path, name_template: str = NAME_TEMPLATES[0]) -> ImageList:
    """Return the parsed image list at ``path``.

    Raises:
        UsageError: the file cannot be read.
        ListError: the list is invalid.
    """
    try:
        content = yamlfile.read(path)
    except OSError as error:
        raise UsageError(
            f"the image list {path} cannot be read: {error.strerror}", hint="give its path with --images FILE"
        ) from None
    return parse(content, str(path), name_template)


def parse(content: bytes, file: str, name_template: str = NAME_TEMPLATES[0]) -> ImageList:
    """Return the image list that a file's content describes.

    Args:
        content: the file's bytes.
        file: the file's name, for messages.
        name_template: one of :data:`NAME_TEMPLATES`.

    Raises:
        ListError: the list is invalid; the error has all problems.
    """
    root, problems = yamlfile.parse(content)
    if root is not None:
        problem = _check_version(root)
        if problem is not None:
            raise ListError(yamlfile.format_problems(file, [problem]))
        model, invalid = yamlfile.validate(ListFile, root)
        problems += [*invalid, *contradictions.find(root, name_template)]
        if model is not None:
            problems += [
                problem
                for _, node, image in _listed(model, root)
                for find_problems in (families.find_problems, sif_entries.find_problems)
                for problem in find_problems(image, image.platforms or model.defaults.platforms, node)
            ]
        if model is not None and not problems:
            image_list = _image_list(model, root, name_template)
            if image_list.entries or image_list.patterns:
                return image_list
            problems.append(
                YamlProblem(root.line, "the list is empty; add an image, an empty list never removes the published ones")
            )
    raise ListError(yamlfile.format_problems(file, problems))


def schema() -> str:
    """Return the JSON Schema of images.yaml as text."""
    return json.dumps(json_schema.schema(ListFile, "images.yaml"), indent=2) + "\n"


def select(entries: Sequence[Entry], images: Sequence[str]) -> tuple[Entry, ...]:
    """Return the entries for the given images, in the list's order; all entries if no image is given.

    Args:
        entries: the entries to select from.
        images: CVMFS names, paths ``/cvmfs/<repository>/<name>``, or image references.

    Raises:
        UsageError: an image is not in the list.
    """
    if not images:
        return tuple(entries)
    by_name = {entry.name: entry for entry in entries}
    by_reference = {text: entry for entry in entries for text in (str(entry.reference), _without_digest(entry.reference))}
    selected: set[str] = set()
    unknown: list[str] = []
    for image in images:
        entry = by_name.get(_CVMFS_PATH.sub("", image)) or by_reference.get(_full_reference(image))
        if entry is None:
            unknown.append(image)
        else:
            selected.add(entry.name)
    if unknown:
        similar = list(dict.fromkeys(name for image in unknown for name in _similar_names(image, by_name)))
        hint = f"similar images: {', '.join(similar)}" if similar else "publisher plan shows all images"
        raise UsageError(f"not in the image list: {', '.join(unknown)}", hint=hint)
    return tuple(entry for entry in entries if entry.name in selected)


def _check_version(root: YamlNode) -> YamlProblem | None:
    """Return the problem with a file of a newer version, in which other problems would mean nothing; None for version 1."""
    node = root.find(["version"])
    if node is root or not isinstance(node.value, int) or node.value <= VERSION:
        return None
    text = f"this program supports version {VERSION} of the list, not version {node.value}; use a newer publisher"
    return YamlProblem(node.line, text)


def _image_list(model: ListFile, root: YamlNode, name_template: str) -> ImageList:
    entries: list[Entry] = []
    patterns: list[Pattern] = []
    for title, node, image in _listed(model, root):
        common = _common(image, model, title, node.line)
        entries += _entries(image, name_template, common)
        if image.patterns:
            patterns.append(_pattern(image, name_template, common))
    return ImageList(tuple(entries), tuple(patterns))


def _listed(model: ListFile, root: YamlNode) -> Iterator[tuple[str, YamlNode, ListedImage]]:
    """Yield the title of its group, the node in the file, and the model of each entry."""
    parts: list[tuple[str, list[str | int], list[ListedImage]]] = [("", ["images"], model.images)]
    parts += [(group.title, ["groups", number, "images"], group.images) for number, group in enumerate(model.groups)]
    for title, path, images in parts:
        for position, image in enumerate(images):
            yield title, root.find([*path, position]), image


def _common(image: ListedImage, model: ListFile, group: str, line: int) -> dict[str, Any]:
    """Return the fields that entries and patterns have in common."""
    platforms = tuple(image.platforms or model.defaults.platforms)
    return {
        "platforms": families.variants(image, platforms) or platforms,
        "formats": frozenset(image.formats or model.defaults.formats),
        "owner": image.owner,
        "project": image.project,
        "expires": image.expires,
        "max_size": image.max_size or model.defaults.max_size,
        "private": image.private is not None,
        "signer": None if image.signed_by is None else _signer(image.signed_by),
        "group": group,
        "line": line,
    }


def _signer(listed: ListedSigner) -> RequiredSigner:
    return RequiredSigner(listed.identity or "", listed.issuer or "", listed.public_key or b"")


def _entries(image: ListedImage, name_template: str, common: dict[str, Any]) -> Iterator[Entry]:
    for reference in image.references:
        yield Entry(cvmfs_name(reference, name_template, image.name), reference, **common)


def _pattern(image: ListedImage, name_template: str, common: dict[str, Any]) -> Pattern:
    return Pattern(
        reference=image.image.reference.pointing_at(None),
        tags=image.patterns,
        exclude=tuple(image.exclude or ()),
        keep=image.keep,
        order=image.order or "version",
        name_template=name_template,
        **common,
    )


def _without_digest(reference: Reference) -> str:
    return str(reference.pointing_at(reference.tag))


def _full_reference(text: str) -> str:
    """Return a reference with its defaults filled in; the text itself if it is not a reference."""
    try:
        return str(sif_sources.parse(text))
    except InvalidReferenceError:
        return text


def _similar_names(text: str, names: Iterable[str]) -> list[str]:
    """Return up to three names that may have been meant."""
    known = list(names)
    return [name for name in known if text in name][:3] or difflib.get_close_matches(text, known)
