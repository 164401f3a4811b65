"""Import of the list of cvmfs-singularity-sync (docker_images.txt), read exactly as that tool reads it.

Each line is stripped of blanks; a line that begins with # is a comment. The entry is split at ``/``. If there are three or more
parts, the first is the registry, with or without a dot in it. Two parts are a namespace and a repository on Docker Hub, and one
part is a repository of Docker Hub's ``library``. The rest after registry and namespace is split at ``:``: two pieces are
repository and tag; with any other number, the first piece is the repository and the tag is ``latest``. The CVMFS name is
``<namespace>/<repository>:<tag>``. A tag that contains ``*`` is a tag pattern; any other text is a single tag.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from publisher.contract.reference import DOCKER_HUB
from publisher.images import rules
from publisher.images.entry import NAME_TEMPLATES
from publisher.images.importers.draft import Draft
from publisher.system.yamlfile import YamlProblem, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
_BARE_PARTS, _TAGGED = 2, 2
_DEFAULT_TITLE = "Images"
_ENTRY = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9._-]+|:)[^\s]*")
_PLATFORMS = {"aarch64": "linux/arm64", "arm64": "linux/arm64", "ppc64le": "linux/ppc64le"}
"""The platform by the last word of a tag. The old tool did not select a platform and took whatever the tag had."""


class LineMeaning(NamedTuple):
    """The image that the old tool published for a line."""

    registry: str
    namespace: str
    repository: str
    tag: str

    @property
    def name(self) -> str:
        """The CVMFS name; if the tag is a tag pattern, the name contains it."""
        return f"{self.namespace}/{self.repository}:{self.tag}"


def meaning(entry: str) -> LineMeaning:
    """Return the image that the old tool published for an entry, a line without surrounding blanks."""
    parts = entry.split("/")
    if len(parts) > _BARE_PARTS:
        registry, namespace, rest = parts[0], parts[1], "/".join(parts[2:])
    else:
        registry, namespace, rest = DOCKER_HUB, parts[0] if len(parts) == _BARE_PARTS else "library", parts[-1]
    pieces = rest.split(":")
    tag = pieces[1] if len(pieces) == _TAGGED else "latest"
    return LineMeaning(DOCKER_HUB if registry in _HUB_NAMES else registry, namespace, pieces[0], tag)


def read(text: str) -> Draft:
    """Return a draft with the images of a list. Comments become group titles or stay comments."""
    draft = Draft(NAME_TEMPLATES[0])
    blocks: list[list[str]] = [[]]
    has_group = False
    for number, line in enumerate(text.split("\n"), 1):
        entry = line.strip()
        if not entry:
            blocks.append([])
        elif entry.startswith("#"):
            blocks[-1].append(entry.lstrip("#").strip())
        else:
            _add_comments(draft, [block for block in blocks if any(block)], has_group=has_group)
            blocks, has_group = [[]], True
            _add(draft, number, entry)
    draft.add_tail([comment for block in blocks for comment in block])
    return draft


def _add_comments(draft: Draft, blocks: list[list[str]], *, has_group: bool) -> None:
    """Add the comment blocks before an entry.

    The first line of the last block is the title of a new group, unless it is an entry that was commented out.
    """
    *before, last = blocks or [[]]
    titles = [comment for comment in last if comment and not _ENTRY.fullmatch(comment)]
    remarks = [comment for block in before for comment in block]
    if not has_group and remarks:
        draft.add_head(remarks)
        remarks = []
    if titles or not has_group:
        title = titles[0] if titles else _DEFAULT_TITLE
        draft.begin_group(title, remarks)
        draft.add_comments([comment for comment in last if comment and comment != title])
    else:
        draft.add_comments([*remarks, *last])


def _add(draft: Draft, line: int, entry: str) -> None:
    old = meaning(entry)
    for text in (entry, old.name, f"{old.registry}/{old.name}"):
        if _means(text, old):
            draft.add_image(line, text, None if "*" in old.tag else _PLATFORMS.get(old.tag.rpartition("-")[2]))
            if text != entry:
                change = f"the old tool read {quoted(entry)} as {old.name} from {old.registry}"
                draft.problems.append(YamlProblem(line, f"{change}; it is imported as {text}"))
            return
    change = f"the old tool read it as {quoted(old.name)} from {quoted(old.registry)}"
    draft.problems.append(YamlProblem(line, f"not imported: {quoted(entry)}: {change}; {'; '.join(_reasons(entry))}"))


def _means(text: str, old: LineMeaning) -> bool:
    """Return whether a text in images.yaml means the image that the old tool published."""
    try:
        written = rules.parse_image(text)
    except ValueError:
        return False
    reference, pattern = written.reference, written.tag_pattern
    if reference.digest is not None or (pattern is not None) != ("*" in old.tag):
        return False
    return (reference.registry, f"{reference.repository}:{pattern or reference.tag}") == (old.registry, old.name)


def _reasons(entry: str) -> Iterator[str]:
    """Yield the reasons why an entry cannot mean the same image in images.yaml."""
    try:
        written = rules.parse_image(entry)
    except ValueError as error:
        yield str(error)
    else:
        pattern = "a tag pattern for " if written.tag_pattern is not None else ""
        yield f"in images.yaml it would be {pattern}{written.reference}"
    if "#" in entry:
        yield "comments need lines of their own"
