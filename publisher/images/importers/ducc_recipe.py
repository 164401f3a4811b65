"""Recipes of ducc, the converter of unpacked.cern.ch: ``input`` is a list of URLs, ``https://REGISTRY/REPOSITORY:TAG``.

ducc links an image as ``<registry>/<repository>:<tag>``: the names of its repository need the name template with the registry.
It turns ``*`` in a tag into a regular expression without quoting the rest, and has no default for the tag.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from publisher.contract.reference import DOCKER_HUB
from publisher.errors import ListError
from publisher.images import rules
from publisher.images.entry import NAME_TEMPLATES
from publisher.images.importers.draft import Draft
from publisher.system import yamlfile
from publisher.system.yamlfile import YamlNode, YamlProblem, quoted

_TEMPLATE = NAME_TEMPLATES[1]
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PLAIN_IN_EXPRESSIONS = re.compile(r"[A-Za-z0-9_*-]*", re.ASCII)


def looks_like_one(content: bytes) -> bool:
    """Whether a file is a recipe: a mapping with ``input``."""
    root, _ = yamlfile.parse(content)
    return root is not None and isinstance(root.value, dict) and "input" in root.value


def read(content: bytes, file: str) -> Draft:
    """A recipe as a draft, in one group.

    Raises:
        ListError: it is no YAML, has another version than 1, or no ``input``.
    """
    root, problems = yamlfile.parse(content)
    if root is not None:
        problems += _of_the_whole(root)
    if root is None or problems:
        raise ListError(yamlfile.lines(file, problems), "the recipe")
    draft = Draft(_TEMPLATE)
    draft.head(_notes(root))
    draft.begin(f"Images of {root.value['cvmfs_repo'].value}" if "cvmfs_repo" in root.value else "Images")
    renamed = False
    lines = set[int]()
    for node in root.value["input"].value:
        if not isinstance(node.value, str):
            draft.problems.append(
                YamlProblem(node.line, "not imported: a text is expected here, https://REGISTRY/REPOSITORY:TAG")
            )
        elif node.line in lines:
            text = f"not imported: {quoted(node.value)} shares its line with another; write each in a line of its own"
            draft.problems.append(YamlProblem(node.line, text))
        else:
            renamed |= _add(draft, node.line, node.value, told=renamed)
        lines.add(node.line)
    return draft


def _of_the_whole(root: YamlNode) -> list[YamlProblem]:
    if not isinstance(root.value, dict):
        return [YamlProblem(root.line, "a recipe is a mapping: version, cvmfs_repo, output_format, input")]
    version, urls = root.find(["version"]), root.find(["input"])
    found = []
    if version.value != 1 or version is root:
        found.append(YamlProblem(version.line, "the recipe's version is not 1; no other is known"))
    if not isinstance(urls.value, list):
        found.append(YamlProblem(urls.line, "the recipe has no list of URLs under input"))
    return found


def _notes(root: YamlNode) -> list[str]:
    notes = [
        f"ducc links images as <registry>/<repository>:<tag>. For such names, in publisher.yaml: name_template: '{_TEMPLATE}'"
    ]
    if "output_format" in root.value:
        notes.append(f"output_format of the recipe, for ducc's images of layers: {root.value['output_format'].value}")
    return notes


def _add(draft: Draft, line: int, url: str, *, told: bool) -> bool:
    """Add an input. Whether its name begins with another registry than ducc's."""
    address = url if _SCHEME.match(url) else f"https://{url}"
    try:
        parts = urlsplit(address)
        text = f"{parts.netloc}/{parts.path.strip('/')}"
        if parts.scheme not in ("http", "https") or parts.query or parts.fragment or not parts.netloc:
            raise ValueError(f"{quoted(url)} is no URL of an image; write https://REGISTRY/REPOSITORY:TAG")  # noqa: TRY301 - as the others
        written = rules.written(text)
    except ValueError as error:
        draft.problems.append(YamlProblem(line, f"not imported: {error}"))
        return False
    draft.add(line, text)
    draft.problems += [YamlProblem(line, note) for note in _differences(text, parts.scheme, written)]
    renamed = not text.startswith(f"{written.reference.registry}/")
    if renamed and not told:
        names = f"{DOCKER_HUB}/… with the template that has the registry, not {parts.netloc}/…"
        draft.problems.append(YamlProblem(line, f"the names of Docker Hub's images, this and others, are {names}"))
    return renamed


def _differences(text: str, scheme: str, written: rules.WrittenReference) -> list[str]:
    """What is not quite what it was with ducc."""
    found = []
    if written.bare:
        found.append(f"{text} has no tag, and ducc has no default for it; it is imported with the tag latest")
    if written.glob is not None and not _PLAIN_IN_EXPRESSIONS.fullmatch(written.glob):
        meant = "a regular expression, where '.' and brackets mean something else"
        found.append(f"{text}: ducc read {written.glob!r} as {meant}; it is imported as a wildcard")
    if scheme == "http":
        host = written.reference.registry
        found.append(f"{text} was fetched without encryption; that needs insecure_registries: [{host!r}] in publisher.yaml")
    return found
