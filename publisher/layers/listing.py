"""The file index of an image from its plan and the header indexes of its layers, without reading a layer.

It has a line for every entry of the stream of :class:`publisher.layers.emit.Emitter`, in the same order.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from publisher.layers.emit import published_mode
from publisher.layers.flatten_plan import DROP, RENAME
from publisher.layers.index import read_attributes, read_contents, read_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from publisher.fileindex.format import FileIndexWriter
    from publisher.layers.emit import ExtraEntry
    from publisher.layers.flatten_plan import FlattenPlan

LOST_ACLS = "entries whose access control list is lost"


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
    for number, (actions, index) in enumerate(zip(plan.actions, indexes, strict=True)):
        if any(actions):
            _write_layer(files, plan, number << 32, actions, index, newest)
    for name in plan.implied_directories:
        files.add(b"5", name, published_mode(b"5", 0o755), 0, 0, 0, newest, b"")
    for extra in extras:
        content = hashlib.sha256(extra.content).digest() if extra.kind == b"0" else extra.link
        mode = published_mode(extra.kind, extra.mode)
        files.add(extra.kind, extra.name, mode, 0, 0, len(extra.content), newest, content)


def _write_layer(  # noqa: PLR0917 - the parts of one layer
    files: FileIndexWriter, plan: FlattenPlan, base: int, actions: bytearray, index: Path, newest: int
) -> None:
    links: list[tuple[int, int, int, int, int]] = []  # node of the first name, mode, uid, gid, time
    rows = zip(actions, read_entries(index), read_attributes(index), read_contents(index), strict=True)
    for ordinal, (action, (kind, name, link), numbers, (digest, xattrs, acl)) in enumerate(rows):
        if action == DROP:
            continue
        if acl:
            plan.dropped[LOST_ACLS] = plan.dropped.get(LOST_ACLS, 0) + 1
        size, mtime, _, mode, uid, gid, _ = numbers
        mode, mtime = published_mode(kind, mode), min(max(mtime, 0), newest)
        content = digest if kind == b"0" else link
        first = plan.new_names.first(base | ordinal) if action == RENAME else None
        if first is not None:
            name = plan.new_names.path(first)  # noqa: PLW2901 - the name that is published
        files.add(kind, name, mode, uid, gid, size, mtime, content, xattrs)
        if first is not None and kind == b"0":
            links.append((first, mode, uid, gid, mtime))
        elif first is not None:
            for copy in plan.new_names.following(first):
                files.add(kind, copy, mode, uid, gid, 0, mtime, link, xattrs)
    for first, mode, uid, gid, mtime in links:
        target = plan.new_names.path(first)
        for other in plan.new_names.following(first):
            files.add(b"1", other, mode, uid, gid, 0, mtime, target)
