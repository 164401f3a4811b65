from __future__ import annotations

import dataclasses

from publisher.build.sandbox.patch_clone import ClonePatch, make_patch
from publisher.fileindex.format import IndexedFile
from tests.support.publisher.index_lines import raw


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
