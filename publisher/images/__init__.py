"""The image list: images.yaml, version 1, into entries. Pure but for :func:`load`.

The list is changed by people who have other work, so it is refused as a whole or taken as a whole: all problems come at
once, each with its line and what to write instead. ``model.py`` says what may stand in the file.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher import names, yamlfile
from publisher.errors import ListError, UsageError
from publisher.images.model import VERSION, ImageList, parse_reference
from publisher.resolver import reference as references
from publisher.resolver.errors import ReferenceError  # noqa: A004 - the field's term
from publisher.resolver.reference import Reference
from publisher.yamlfile import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import date
    from pathlib import Path

    from publisher.oci import Platform
    from publisher.yamlfile import Node

NAME_TEMPLATES = ("{repository}:{tag}", "{registry}/{repository}:{tag}")
"""How a CVMFS name can be made of a reference."""
_CVMFS_PATH = re.compile(r"^/cvmfs/[^/]+/")


@dataclass(frozen=True)
class Entry:
    """One image of the list.

    Attributes:
        name: CVMFS name, ``htc/rocky:9``.
        reference: where it comes from; its tag is never None, its digest is where the entry pins one.
        platforms: which of its platforms are published, in the list's order.
        formats: ``sandbox``, ``sif`` or both.
        owner, project: who answers for it, where the list says so.
        expires: the last day it is published.
        max_size: bytes that its files may have, unpacked.
        group: title of its group.
        line: where it stands in the file; entries that differ in nothing else are equal.
    """

    name: str
    reference: Reference
    platforms: tuple[Platform, ...]
    formats: frozenset[str]
    owner: str | None = None
    project: str | None = None
    expires: date | None = None
    max_size: int | None = None
    group: str = ""
    line: int = field(default=0, compare=False)


def load(path: Path, name_template: str = NAME_TEMPLATES[0]) -> tuple[Entry, ...]:
    """The entries of the list at ``path``, in its order.

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


def parse(content: bytes, file: str, name_template: str = NAME_TEMPLATES[0]) -> tuple[Entry, ...]:
    """The entries of a list, in its order.

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
        model, wrong = yamlfile.validate(ImageList, root)
        problems += [*wrong, *_collisions(root, name_template)]
        if model is not None and not problems:
            entries = tuple(_entries(model, root, name_template))
            if entries:
                return entries
            problems.append(Problem(root.line, "the list is empty; nothing is ever removed by emptying it"))
    raise ListError(yamlfile.lines(file, problems))


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


def cvmfs_name(reference: Reference, name_template: str) -> str:
    """The name that a reference with a tag is published under.

    Raises:
        UsageError: a part of it is longer than file systems have.
    """
    name = name_template.format(registry=reference.registry, repository=reference.repository, tag=reference.tag)
    names.split(name, UsageError)
    return name


def _newer_version(root: Node) -> Problem | None:
    """A version of the file format that this program does not know: its other findings would mean nothing."""
    node = root.find(["version"])
    if node is root or not isinstance(node.value, int) or node.value <= VERSION:
        return None
    return Problem(node.line, f"version {node.value} is newer than this program, which knows {VERSION}; use a newer publisher")


def _collisions(root: Node, name_template: str) -> Iterator[Problem]:
    """Entries that share a name, or whose name is too long; whatever else is wrong in the file does not matter for it."""
    first: dict[str, tuple[int, Reference]] = {}
    for node in _images(root):
        try:
            reference = parse_reference(node.value)
            name = cvmfs_name(reference, name_template)
        except ValueError:
            continue  # told by the models
        except UsageError as error:
            yield Problem(node.line, f"{error.reason}; choose a shorter tag")
            continue
        line, other = first.setdefault(name, (node.line, reference))
        if other is reference:
            continue
        if _unpinned(other) == _unpinned(reference):
            yield Problem(node.line, f"{_unpinned(reference)} is in the list already, in line {line}; leave one out")
        else:
            text = f"{reference} would be published as {name}, and so would {other} in line {line}; leave one out"
            yield Problem(node.line, text)


def _images(root: Node) -> Iterator[Node]:
    """The nodes of all references, in a file that may be wrong in any way."""
    for group in _items(root, "groups"):
        for node in _items(group, "images"):
            yield node.find(["image"])


def _items(node: Node, key: str) -> list[Node]:
    found = node.find([key])
    return found.value if found is not node and isinstance(found.value, list) else []


def _entries(model: ImageList, root: Node, name_template: str) -> Iterator[Entry]:
    for number, group in enumerate(model.groups):
        for position, image in enumerate(group.images):
            yield Entry(
                name=cvmfs_name(image.image, name_template),
                reference=image.image,
                platforms=tuple(image.platforms or model.defaults.platforms),
                formats=frozenset(image.formats or model.defaults.formats),
                owner=image.owner,
                project=image.project,
                expires=image.expires,
                max_size=image.max_size or model.defaults.max_size,
                group=group.title,
                line=root.find(["groups", number, "images", position]).line,
            )


def _unpinned(reference: Reference) -> str:
    return str(Reference(reference.registry, reference.repository, reference.tag))


def _whole(text: str) -> str:
    """A reference with everything that its text leaves out; the text itself, where it is none."""
    try:
        return str(references.parse(text))
    except ReferenceError:
        return text


def _near(text: str, known: Iterable[str]) -> list[str]:
    """Up to three names that somebody may have meant."""
    listed = list(known)
    return [name for name in listed if text in name][:3] or difflib.get_close_matches(text, listed)
