from __future__ import annotations

import gzip
import hashlib
import io
from typing import TYPE_CHECKING

import pytest

from publisher.errors import LayerError
from publisher.fileindex.format import digest_of_xattrs
from publisher.layers.index import IndexSummary, read_attributes, read_contents, read_entries, read_summary, write_index
from publisher.layers.limits import LayerLimits
from tests.support.images import raw_tar
from tests.support.images.layers import directory, file, hardlink, symlink, tar

if TYPE_CHECKING:
    from pathlib import Path


def index(archive: bytes, path: Path, limits: LayerLimits | None = None) -> IndexSummary:
    return write_index(io.BytesIO(archive).read, path, limits or LayerLimits())


def test_an_index_says_what_the_headers_say(tmp_path: Path) -> None:
    archive = tar(
        [directory("d", 0o750), file("d/caf\udce9", b"123", uid=5, gid=70000), symlink("l", "d"), hardlink("h", "/d/x")]
    )
    summary = index(gzip.compress(archive), tmp_path / "a" / "index")
    assert summary == IndexSummary("sha256:" + hashlib.sha256(archive).hexdigest(), 4, len(archive))
    assert read_summary(tmp_path / "a" / "index") == summary
    assert list(read_entries(tmp_path / "a" / "index")) == [
        (b"5", b"d", b""),
        (b"0", b"d/caf\xe9", b""),
        (b"2", b"l", b"d"),
        (b"1", b"h", b"d/x"),
    ]
    time = 1_600_000_000
    assert list(read_attributes(tmp_path / "a" / "index")) == [
        (0, time, 0, 0o750, 0, 0, True),
        (3, time, 512, 0o644, 5, 70000, False),
        (0, time, 512 + 512 * 4, 0o777, 0, 0, True),
        (0, time, 512 + 512 * 5, 0o644, 0, 0, True),
    ]


@pytest.mark.untraced
def test_thousands_of_entries_come_back_in_order(tmp_path: Path) -> None:
    names = [b"%d" % number for number in range(9000)]
    archive = b"".join(raw_tar.header(name, mtime=raw_tar.number(int(name) - 5)) for name in names)
    index(archive, tmp_path / "index")
    assert [name for _, name, _ in read_entries(tmp_path / "index")] == names
    assert [mtime for _, mtime, *_ in read_attributes(tmp_path / "index")] == [number - 5 for number in range(9000)]


def test_an_index_says_what_the_content_of_each_entry_is(tmp_path: Path) -> None:
    acl, own = {"SCHILY.acl.default": "user::rwx"}, {"SCHILY.xattr.user.x": "1"}
    entries = [directory("d", pax=own), file("full", b"abc", pax=acl), file("empty", b""), symlink("l", "full")]
    index(tar([*entries, *(file(f"f{number}", b"%d" % number) for number in range(5000))]), tmp_path / "index")
    found = list(read_contents(tmp_path / "index"))
    none, xattrs = bytes(32), digest_of_xattrs({b"SCHILY.xattr.user.x": b"1"})
    assert found[:2] == [(none, xattrs, False), (hashlib.sha256(b"abc").digest(), b"", True)]
    assert found[2:4] == [(hashlib.sha256(b"").digest(), b"", False), (none, b"", False)]
    assert found[4:] == [(hashlib.sha256(b"%d" % number).digest(), b"", False) for number in range(5000)]


def test_holes_count_against_the_limit_before_they_are_hashed(tmp_path: Path) -> None:
    sparse = raw_tar.GNU_SPARSE["a sparse file that is all hole"]
    limits = LayerLimits(unpacked_size=1_500_000)
    index(sparse + raw_tar.END, tmp_path / "index", limits)
    with pytest.raises(LayerError, match="with the sparse files before it more than the limit"):
        index(sparse * 4 + raw_tar.END, tmp_path / "index", limits)


def test_times_at_both_ends_are_kept(tmp_path: Path) -> None:
    ends = ((1 << 63) - 1, -(1 << 63))
    index(b"".join(raw_tar.header(b"a", mtime=raw_tar.number(time)) for time in ends), tmp_path / "index")
    assert [mtime for _, mtime, *_ in read_attributes(tmp_path / "index")] == [*ends]


@pytest.mark.parametrize("content", [b"", b"OSPIDX05" + bytes(48), b"OSPIDX06"])
def test_files_that_are_not_an_index_of_this_version_are_ignored(content: bytes, tmp_path: Path) -> None:
    assert read_summary(tmp_path / "index") is None
    (tmp_path / "index").write_bytes(content)
    assert read_summary(tmp_path / "index") is None


def test_the_digest_includes_the_bytes_after_the_archives_end(tmp_path: Path) -> None:
    archive = tar([file("a")]) + b"more" * 100_000
    assert index(archive, tmp_path / "index").diff_id == "sha256:" + hashlib.sha256(archive).hexdigest()


LIMITS = LayerLimits(unpacked_size=1 << 20, entries=3, path_length=20)


@pytest.mark.parametrize(
    ("archive", "problem"),
    [
        (gzip.compress(bytes(1 << 24)), "unpacks to more than 1.0 MB"),
        (gzip.compress(tar([file("a", bytes(1 << 24))])), "unpacks to more than 1.0 MB"),
        (
            raw_tar.header(b"a", b"S", magic=raw_tar.GNU, tail=raw_tar.sparse_map((1 << 30, 0), real=1 << 30)),
            r"has 1\.1 GB, more than the limit",
        ),
        (b"".join(raw_tar.header(b"%d" % number) for number in range(4)), "more than 3 entries"),
        (raw_tar.header(b"a/" * 10 + b"b"), "path of 21 bytes"),
        (b"no archive".ljust(1024), "not a tar archive"),
    ],
)
def test_a_layer_beyond_a_limit_is_refused_and_leaves_nothing(archive: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=problem):
        index(archive, tmp_path / "index", LIMITS)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_for_file_systems_is_refused(tmp_path: Path) -> None:
    assert index(tar([file("d/" + "n" * 255)]), tmp_path / "index").entries == 1
    with pytest.raises(LayerError, match="256 bytes"):
        index(tar([file("d/" + "n" * 256 + "/x")]), tmp_path / "index")
