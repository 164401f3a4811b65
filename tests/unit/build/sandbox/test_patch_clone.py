from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest

from publisher.build.sandbox.patch_clone import ClonePatch, add_files, make_patch
from publisher.errors import RepositoryError
from publisher.fileindex.format import IndexedFile
from tests.support.publisher.index_lines import raw

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


def line(path: bytes, kind: str = "f", xattrs: bytes = b"") -> IndexedFile:
    return IndexedFile(kind, path, 0o755, 0, 0, 0, 1_600_000_000, b"0" * 64 if kind == "f" else b"", xattrs)


BEFORE = [line(b"etc", "d"), *(line(b"etc/%d" % number) for number in range(20))]


def patch(*changed: IndexedFile, before: list[IndexedFile] = BEFORE) -> ClonePatch | None:
    new = {one.path: one for one in changed}
    return make_patch(lambda: map(raw, before), lambda: [raw(new.get(one.path, one)) for one in before])


def test_a_file_of_which_only_extended_attributes_differ_is_unpacked() -> None:
    found = patch(line(b"etc/7", xattrs=b"ab"))
    assert found is not None
    assert (found.removed, found.added) == ((b"etc/7",), (b"etc/7",))


def test_a_directory_with_extended_attributes_that_would_be_changed_makes_no_clone() -> None:
    """Only files are unpacked with theirs."""
    assert patch(line(b"etc", "d", xattrs=b"ab")) is None
    with_xattrs = [line(b"etc", "d", xattrs=b"ab"), *BEFORE[1:]]
    assert patch(dataclasses.replace(BEFORE[3], mtime=5), before=with_xattrs) is None
    assert patch(before=with_xattrs) is not None


def test_lines_that_stay_are_compared_and_not_read() -> None:
    strange = b"f a line that cannot be parsed"
    before = [*map(raw, BEFORE), strange]
    after = [raw(dataclasses.replace(one, mtime=5) if one.path == b"etc/7" else one) for one in BEFORE]
    found = make_patch(lambda: before, lambda: [*after, strange])
    assert found is not None
    assert found.added == (b"etc/7",)


def test_files_are_added_and_their_directories_keep_their_times(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "usr/lib/small").write_bytes(b"small")
    for directory in (tree / "usr/lib", tree / "usr", tree):
        os.utime(directory, (5, 5))

    def extract(target: Path, wanted: Collection[bytes]) -> None:
        assert list(wanted) == [b"usr/lib/large", b"huge"]
        (target / "usr/lib").mkdir(parents=True)
        (target / "usr/lib/large").write_bytes(b"large")
        (target / "huge").write_bytes(b"huge")

    add_files(tree, [b"usr/lib/large", b"huge"], extract)
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == [
        "huge",
        "usr",
        "usr/lib",
        "usr/lib/large",
        "usr/lib/small",
    ]
    assert [path.stat().st_mtime for path in (tree, tree / "usr", tree / "usr/lib")] == [5, 5, 5]
    assert list(tmp_path.iterdir()) == [tree]


def test_a_file_that_the_image_does_not_have_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with pytest.raises(RepositoryError, match="files cannot be added to tree"):
        add_files(tmp_path / "tree", [b"large"], lambda target, _wanted: target.mkdir())
    assert list(tmp_path.iterdir()) == [tmp_path / "tree"]
