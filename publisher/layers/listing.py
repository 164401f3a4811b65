"""The entries of an image from its plan and the header indexes of its layers, and its file index, without reading a layer.

There is one for every entry of the stream of :class:`publisher.layers.emit.Emitter`, in the same order.
"""

from __future__ import annotations

import hashlib
from itertools import chain, pairwise
from typing import TYPE_CHECKING, NamedTuple

from publisher.layers.contents import Place
from publisher.layers.emit import published_mode
from publisher.layers.flatten_plan import DROP, RENAME
from publisher.layers.index import read_attributes, read_contents, read_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from publisher.fileindex.format import FileIndexWriter
    from publisher.layers.emit import ExtraEntry
    from publisher.layers.flatten_plan import FlattenPlan

LOST_ACLS = "entries whose access control list is lost"
_OFFSET = 2  # where it is in the attributes of an entry


class ListedEntry(NamedTuple):
    """An entry as it is published.

    Attributes:
        kind: tar type flag.
        path: path from the root.
        mode: permission bits.
        uid: owner.
        gid: group.
        size: bytes of a file's content.
        mtime: seconds since the epoch.
        content: sha256 of a file's content (32 bytes), target of a link, or empty.
        xattrs: digest of its extended attributes as in a file index, empty if there are none.
        place: where it is in the stream of its layer; None if it is in none, or a further name of another entry.
    """

    kind: bytes
    path: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    content: bytes
    xattrs: bytes = b""
    place: Place | None = None


def write_listing(
    files: FileIndexWriter, plan: FlattenPlan, indexes: Sequence[Path], extras: Iterable[ExtraEntry], newest: int
) -> None:
    """Write a line for every path of an image, and count lost access control lists in the plan.

    Args:
        files: receives the lines; the caller closes it.
        plan: the plan.
        indexes: header indexes of its layers, from the bottom up.
        extras: the entries that this host adds.
        newest: the latest modification time (:class:`publisher.layers.survey.StreamSurvey`); later times become it.
    """
    plan.dropped.pop(LOST_ACLS, None)
    layers = (layer_entries(plan, number, index, newest) for number, index in enumerate(indexes))
    for entry in chain(*layers, added_entries(plan, extras, newest)):
        files.add(*entry[:9])


def added_entries(plan: FlattenPlan, extras: Iterable[ExtraEntry], newest: int) -> Iterator[ListedEntry]:
    """Yield the directories without an entry of their own, and the entries that this host adds, which follow all layers."""
    for name in plan.implied_directories:
        yield ListedEntry(b"5", name, published_mode(b"5", 0o755), 0, 0, 0, newest, b"")
    for extra in extras:
        content = hashlib.sha256(extra.content).digest() if extra.kind == b"0" else extra.link
        mode = published_mode(extra.kind, extra.mode)
        yield ListedEntry(extra.kind, extra.name, mode, 0, 0, len(extra.content), newest, content)


def layer_entries(plan: FlattenPlan, number: int, index: Path, newest: int) -> Iterator[ListedEntry]:
    """Yield the surviving entries of a layer, and count its lost access control lists in the plan.

    Args:
        plan: the plan.
        number: the layer, counted from the bottom.
        index: its header index.
        newest: the latest modification time; later times become it.
    """
    actions, base = plan.actions[number], number << 32
    if not any(actions):
        return
    linked: list[tuple[int, ListedEntry]] = []  # node of the first name of a file, and its entry
    attributes = pairwise(chain(read_attributes(index), [None]))
    rows = zip(actions, read_entries(index), attributes, read_contents(index), strict=True)
    for ordinal, (action, (kind, name, link), (numbers, following), (digest, xattrs, acl)) in enumerate(rows):
        if action == DROP or numbers is None:
            continue
        if acl:
            plan.dropped[LOST_ACLS] = plan.dropped.get(LOST_ACLS, 0) + 1
        size, mtime, offset, mode, uid, gid, reusable = numbers
        first = plan.new_names.first(base | ordinal) if action == RENAME else 0
        entry = ListedEntry(
            kind,
            plan.new_names.path(first) if first else name,
            published_mode(kind, mode),
            *(uid, gid, size, min(max(mtime, 0), newest)),
            digest if kind == b"0" else link,
            xattrs,
            Place(offset, None if following is None else following[_OFFSET], reusable),
        )
        yield entry
        if first and kind == b"0":
            linked.append((first, entry))
        elif first:
            yield from (entry._replace(path=path, size=0, place=None) for path in plan.new_names.following(first))
    for first, file in linked:
        other = file._replace(kind=b"1", size=0, content=file.path, xattrs=b"", place=None)
        yield from (other._replace(path=path) for path in plan.new_names.following(first))
