from __future__ import annotations

import io
from typing import TYPE_CHECKING

from publisher.fileindex.format import FileIndexWriter, read_file_index
from publisher.layers.emit import Emitter, ExtraEntry
from publisher.layers.flatten import flatten
from publisher.layers.listing import write_listing
from tests.support.images.layers import Entry, directory, file, hardlink, indexed, symlink, tar

if TYPE_CHECKING:
    from pathlib import Path

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


def test_the_listing_is_the_file_index_that_is_written_beside_the_stream(tmp_path: Path) -> None:
    blobs, indexes = indexed([tar(LOWER), tar([file("gone", b"")]), tar(UPPER)], tmp_path)
    plan = flatten(indexes).finish()
    listed, emitted = io.BytesIO(), io.BytesIO()
    files = FileIndexWriter(listed)
    write_listing(files, plan, indexes, EXTRAS, 1_650_000_000)
    files.close()
    lost = dict(plan.dropped)
    beside = FileIndexWriter(emitted)
    emitter = Emitter(lambda _: None, beside, 1_650_000_000)
    emitter.write_layers(plan, blobs, lambda _: None)
    emitter.write_directories(plan.implied_directories)
    for extra in EXTRAS:
        emitter.write_entry(extra)
    beside.close()
    lines = list(read_file_index(io.BytesIO(listed.getvalue())))
    assert lines == list(read_file_index(io.BytesIO(emitted.getvalue())))
    assert {b"usr/lib/moved", b"again", b"link", b"pipe2", b"some/where"} <= {line.path for line in lines}
    assert (files.files, files.unpacked_size) == (beside.files, beside.unpacked_size)
    assert lost == plan.dropped == {"entries whose access control list is lost": 1}
