"""The list of cvmfs-singularity-sync (docker_images.txt), read exactly as that tool read it.

Its grammar, per line (without blanks around it; a line that begins with # is a comment): parts between ``/``, of which the
first is the registry if there are three or more, with a dot or without; two are namespace and repository on Docker Hub, one is
a repository of ``library`` there. What follows the registry and the namespace is split at ``:``; two pieces are repository and
tag, any other number means the first piece with the tag ``latest``. The name is ``<namespace>/<repository>:<tag>``. A tag
with ``*`` in it is a wildcard, any other is one tag, whatever it is made of.
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
_UNTITLED = "Images"
_ENTRY = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9._-]+|:)[^\s]*")
_PLATFORMS = {"aarch64": "linux/arm64", "arm64": "linux/arm64", "ppc64le": "linux/ppc64le"}
"""By the last word of a tag. The old tool asked for no platform and took what such a tag had."""


class LineMeaning(NamedTuple):
    """What the old tool made of an entry."""

    registry: str
    namespace: str
    repository: str
    tag: str

    @property
    def name(self) -> str:
        """The CVMFS name; with the wildcard in it, where the tag is one."""
        return f"{self.namespace}/{self.repository}:{self.tag}"


def meaning(entry: str) -> LineMeaning:
    """What the old tool made of an entry: ``entry`` is a line of the list, without blanks around it."""
    parts = entry.split("/")
    if len(parts) > _BARE_PARTS:
        registry, namespace, rest = parts[0], parts[1], "/".join(parts[2:])
    else:
        registry, namespace, rest = DOCKER_HUB, parts[0] if len(parts) == _BARE_PARTS else "library", parts[-1]
    pieces = rest.split(":")
    tag = pieces[1] if len(pieces) == _TAGGED else "latest"
    return LineMeaning(DOCKER_HUB if registry in _HUB_NAMES else registry, namespace, pieces[0], tag)


def read(text: str) -> Draft:
    """A list as a draft; comments become titles, and comments where they are none."""
    draft = Draft(NAME_TEMPLATES[0])
    blocks: list[list[str]] = [[]]
    begun = False
    for number, line in enumerate(text.split("\n"), 1):
        entry = line.strip()
        if not entry:
            blocks.append([])
        elif entry.startswith("#"):
            blocks[-1].append(entry.lstrip("#").strip())
        else:
            _begin(draft, [block for block in blocks if any(block)], begun=begun)
            blocks, begun = [[]], True
            _add(draft, number, entry)
    draft.end([comment for block in blocks for comment in block])
    return draft


def _begin(draft: Draft, blocks: list[list[str]], *, begun: bool) -> None:
    """What the comments before an entry are: the last block's first line is a title, entries that are shut off are none."""
    *before, last = blocks or [[]]
    titles = [comment for comment in last if comment and not _ENTRY.fullmatch(comment)]
    remarks = [comment for block in before for comment in block]
    if not begun and remarks:
        draft.head(remarks)
        remarks = []
    if titles or not begun:
        title = titles[0] if titles else _UNTITLED
        draft.begin(title, remarks)
        draft.comment([comment for comment in last if comment and comment != title])
    else:
        draft.comment([*remarks, *last])


def _add(draft: Draft, line: int, entry: str) -> None:
    old = meaning(entry)
    for text in (entry, old.name, f"{old.registry}/{old.name}"):
        if _means(text, old):
            draft.add(line, text, None if "*" in old.tag else _PLATFORMS.get(old.tag.rpartition("-")[2]))
            if text != entry:
                was = f"the old tool read {quoted(entry)} as {old.name} from {old.registry}"
                draft.problems.append(YamlProblem(line, f"{was}; it is imported as {text}"))
            return
    was = f"the old tool read it as {quoted(old.name)} from {quoted(old.registry)}"
    draft.problems.append(YamlProblem(line, f"not imported: {quoted(entry)}: {was}; {'; '.join(_why(entry))}"))


def _means(text: str, old: LineMeaning) -> bool:
    """Whether a text means in images.yaml what the old tool made of it."""
    try:
        written = rules.written(text)
    except ValueError:
        return False
    reference, glob = written.reference, written.glob
    if reference.digest is not None or (glob is not None) != ("*" in old.tag):
        return False
    return (reference.registry, f"{reference.repository}:{glob or reference.tag}") == (old.registry, old.name)


def _why(entry: str) -> Iterator[str]:
    """Why an entry cannot mean in images.yaml what it meant."""
    try:
        written = rules.written(entry)
    except ValueError as error:
        yield str(error)
    else:
        yield f"in images.yaml it would be {'a wildcard for ' if written.glob is not None else ''}{written.reference}"
    if "#" in entry:
        yield "comments have lines of their own"
