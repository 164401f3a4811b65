from __future__ import annotations

import hashlib
import io
import stat
from typing import TYPE_CHECKING

from publisher.fileindex.format import FileIndexWriter, IndexedFile, read_file_index
from publisher.layers.emit import ExtraEntry
from publisher.layers.flatten import flatten
from publisher.layers.listing import write_listing
from tests.support.images.layers import Entry, directory, file, hardlink, indexed, symlink, tar, tree_of_stream
from tests.support.images.tar_stream import emit

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.layers.flatten_plan import FlattenPlan

ACL, XATTR = {"SCHILY.acl.default": "user::rwx"}, {"SCHILY.xattr.user.x": "1"}
LOWER = [
    *(directory("usr/lib", 0o700, pax=XATTR), file("usr/lib/a", b"first", mode=0o600, uid=7), symlink("lib", "usr/lib")),
    *(file("gone", b"whited out"), file("listed", b"acl", pax=ACL), Entry("fifo", "pipe"), file("future", mtime=1 << 40)),
    *(file("some/where/deep", b"", pax=XATTR), hardlink("same", "usr/lib/a"), hardlink("link", "lib"), hardlink("pipe2", "pipe")),
]
UPPER = [
    file("lib/moved", b"through the link", mtime=-5),
    file(".wh.gone", b""),
    file("usr/lib/b"),
    hardlink("again", "lib/moved"),
]
EXTRAS = [
    ExtraEntry(b"etc", b"5", 0o755),
    ExtraEntry(b"etc/hosts", b"0", 0o600, b"x"),
    ExtraEntry(b".run", b"2", 0o777, link=b"r"),
]


def test_the_listing_has_what_is_in_the_stream(tmp_path: Path) -> None:
    blobs, indexes = indexed([tar(LOWER), tar([file("gone", b"")]), tar(UPPER)], tmp_path)
    plan = flatten(indexes).finish()
    stream = io.BytesIO()
    emit(plan, blobs, indexes, 1_650_000_000, stream.write, EXTRAS)
    tree = tree_of_stream(stream.getvalue())
    files, lines = listed(plan, indexes)
    by_path = {line.path: line for line in lines}
    assert by_path.keys() == tree.keys()
    for path, line in by_path.items():
        node = tree[path]
        assert (line.mode, line.uid, line.gid, line.mtime) == (node.mode, node.uid, node.gid, node.mtime), path
        if line.kind == "f":
            assert (line.content, line.size) == (hashlib.sha256(node.content).hexdigest().encode(), len(node.content))
        if line.kind == "h":
            assert {line.content, path} <= set(node.names)
        if line.kind == "l":
            assert line.content == node.content
    kinds = {path: line.kind for path, line in by_path.items()}
    assert {kinds[b"usr/lib/a"], kinds[b"same"]} == {kinds[b"usr/lib/moved"], kinds[b"again"]} == {"f", "h"}
    assert (kinds[b"link"], kinds[b"pipe"], kinds[b"pipe2"], kinds[b"some/where"]) == ("l", "p", "p", "d")
    assert by_path[b"usr/lib"].xattrs == by_path[b"some/where/deep"].xattrs != b""
    contents = {node.names: len(node.content) for node in tree.values() if stat.S_ISREG(node.kind)}
    assert (files.files, files.unpacked_size) == (len(tree), sum(contents.values()))


def test_access_control_lists_that_are_lost_are_counted_in_the_plan(tmp_path: Path) -> None:
    lists = [{"SCHILY.xattr.system.posix_acl_access": "x"}, {"SCHILY.acl.default": "user::rwx"}, {"SCHILY.xattr.user.x": "x"}]
    layer = tar([*(file(f"f{number}", pax=one) for number, one in enumerate(lists)), file("plain")])
    _, indexes = indexed([layer, tar([file("f1")])], tmp_path)
    plan = flatten(indexes).finish()
    for _ in range(2):  # a SIF that is made twice has lost them once
        listed(plan, indexes)
        assert plan.dropped == {"entries whose access control list is lost": 1}


def listed(plan: FlattenPlan, indexes: list[Path]) -> tuple[FileIndexWriter, list[IndexedFile]]:
    out = io.BytesIO()
    files = FileIndexWriter(out)
    write_listing(files, plan, indexes, EXTRAS, 1_650_000_000)
    files.close()
    return files, list(read_file_index(io.BytesIO(out.getvalue())))
