"""Import of recipes of ducc, the converter of unpacked.cern.ch.

A recipe lists image URLs under ``input``: ``https://REGISTRY/REPOSITORY:TAG``. ducc names an image
``<registry>/<repository>:<tag>``, so keeping its names needs the name template with the registry. ducc turns ``*`` in a tag into
a regular expression without escaping the other characters, and has no default tag.
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
_PLAIN_IN_REGEX = re.compile(r"[A-Za-z0-9_*-]*", re.ASCII)


def is_recipe(content: bytes) -> bool:
    """Return whether a file is a recipe: a YAML mapping with the key ``input``."""
    root, _ = yamlfile.parse(content)
    return root is not None and isinstance(root.value, dict) and "input" in root.value


def read(content: bytes, file: str) -> Draft:
    """Return a draft with the images of a recipe, in one group.

    Raises:
        ListError: the recipe is not valid YAML, has another version than 1, or has no ``input``.
    """
    root, problems = yamlfile.parse(content)
    if root is not None:
        problems += _check(root)
    if root is None or problems:
        raise ListError(yamlfile.format_problems(file, problems), "the recipe")
    draft = Draft(_TEMPLATE)
    draft.add_head(_head_comments(root))
    draft.begin_group(f"Images of {root.value['cvmfs_repo'].value}" if "cvmfs_repo" in root.value else "Images")
    has_renamed = False
    lines = set[int]()
    for node in root.value["input"].value:
        if not isinstance(node.value, str):
            text = "not imported: a URL is expected here; write https://REGISTRY/REPOSITORY:TAG"
            draft.problems.append(YamlProblem(node.line, text))
        elif node.line in lines:
            text = f"not imported: {quoted(node.value)} is on the same line as another URL; write one URL per line"
            draft.problems.append(YamlProblem(node.line, text))
        else:
            has_renamed |= _add(draft, node.line, node.value, is_reported=has_renamed)
        lines.add(node.line)
    return draft


def _check(root: YamlNode) -> list[YamlProblem]:
    if not isinstance(root.value, dict):
        return [YamlProblem(root.line, "the file is not a recipe: a mapping with version, cvmfs_repo, output_format and input")]
    version, urls = root.find(["version"]), root.find(["input"])
    problems = []
    if version.value != 1 or version is root:
        problems.append(YamlProblem(version.line, "the recipe's version is not 1; only version 1 is supported"))
    if not isinstance(urls.value, list):
        problems.append(YamlProblem(urls.line, "the recipe has no list of URLs under input"))
    return problems


def _head_comments(root: YamlNode) -> list[str]:
    names = "ducc names images <registry>/<repository>:<tag>"
    comments = [f"{names}. To keep these names, set in publisher.yaml: name_template: '{_TEMPLATE}'"]
    if "output_format" in root.value:
        comments.append(f"The recipe's output_format, for ducc's thin images: {root.value['output_format'].value}")
    return comments


def _add(draft: Draft, line: int, url: str, *, is_reported: bool) -> bool:
    """Add an image.

    Args:
        draft: the draft.
        line: its line in the recipe.
        url: its URL.
        is_reported: it has been reported that images of Docker Hub get another name.

    Returns:
        Whether its name begins with another registry than ducc's name.
    """
    try:
        parts = urlsplit(url if _SCHEME.match(url) else f"https://{url}")
        text = f"{parts.netloc}/{parts.path.strip('/')}"
        if parts.scheme not in ("http", "https") or parts.query or parts.fragment or not parts.netloc:
            raise ValueError(f"{quoted(url)} is not the URL of an image; write https://REGISTRY/REPOSITORY:TAG")  # noqa: TRY301 - as the others
        written = rules.parse_image(text)
    except ValueError as error:
        draft.problems.append(YamlProblem(line, f"not imported: {error}"))
        return False
    draft.add_image(line, text)
    draft.problems += [YamlProblem(line, difference) for difference in _differences(text, parts.scheme, written)]
    is_renamed = not text.startswith(f"{written.reference.registry}/")
    if is_renamed and not is_reported:
        names = f"{DOCKER_HUB}/… and not with {parts.netloc}/…"
        change = f"with the name template that has the registry, the names of all Docker Hub images begin with {names}"
        draft.problems.append(YamlProblem(line, change))
    return is_renamed


def _differences(text: str, scheme: str, written: rules.WrittenReference) -> list[str]:
    """Return how the imported image differs from what it was with ducc."""
    differences = []
    if written.bare:
        differences.append(f"{text} has no tag, and ducc has no default tag; it is imported with the tag latest")
    if written.tag_pattern is not None and not _PLAIN_IN_REGEX.fullmatch(written.tag_pattern):
        regex = "a regular expression, in which '.' and brackets have another meaning"
        differences.append(f"{text}: ducc read {written.tag_pattern!r} as {regex}; it is imported as a tag pattern")
    if scheme == "http":
        setting = f"insecure_registries: [{written.reference.registry!r}]"
        differences.append(f"{text} was fetched without encryption; this needs {setting} in publisher.yaml")
    return differences
