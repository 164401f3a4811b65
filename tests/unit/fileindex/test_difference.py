from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from publisher.fileindex import difference as difference_module
from publisher.fileindex.difference import FileChange, difference
from publisher.fileindex.format import IndexedFile

if TYPE_CHECKING:
    import pytest


def line(path: bytes, content: bytes = b"x", **more: object) -> IndexedFile:
    digest = hashlib.sha256(content).hexdigest().encode()
    found = IndexedFile("f", path, 0o644, 0, 0, len(content), 1_600_000_000, digest)
    return dataclasses.replace(found, **more)  # type: ignore[arg-type]  # its fields


def compared(before: list[IndexedFile], after: list[IndexedFile], *, times: bool = False) -> list[FileChange]:
    return list(difference(before, after, times=times))


def test_what_is_new_gone_and_different_is_told_in_the_order_of_paths() -> None:
    before = [line(b"b"), line(b"same"), line(b"c", b"old")]
    after = [line(b"same"), line(b"c", b"new"), line(b"a")]
    assert [str(change) for change in compared(before, after)] == [
        "+ a (file, 1 bytes)",
        "- b (file, 1 bytes)",
        "~ c (file, 3 bytes): content",
    ]


def test_same_size_and_time_do_not_hide_another_content() -> None:
    (change,) = compared([line(b"a", b"one")], [line(b"a", b"two")])
    assert change.attributes == ("content",)


def test_a_time_alone_counts_only_when_asked_for() -> None:
    before, after = [line(b"a")], [line(b"a", mtime=1_700_000_000)]
    assert compared(before, after) == []
    (change,) = compared(before, after, times=True)
    assert change.attributes == ("mtime",)


def test_kinds_modes_owners_and_targets_count() -> None:
    link = IndexedFile("l", b"a", 0o777, 0, 0, 0, 1_600_000_000, b"target")
    for after, attribute in (
        (line(b"a", mode=0o755), "mode"),
        (line(b"a", uid=7), "uid"),
        (line(b"a", gid=7), "gid"),
        (line(b"a", xattrs=b"ab"), "xattrs"),
        (link, "kind"),
    ):
        (change,) = compared([line(b"a")], [after])
        assert attribute in change.attributes
    (moved,) = compared([link], [dataclasses.replace(link, content=b"elsewhere")])
    assert moved.attributes == ("content",)
    assert str(moved) == "~ a (symbolic link): content"


def test_names_that_are_no_text_are_shown_all_the_same() -> None:
    (change,) = compared([], [line(b"caf\xe9")])
    assert str(change) == r"+ caf\xe9 (file, 1 bytes)"


indexes = st.dictionaries(st.sampled_from([b"a", b"b", b"c", b"d"]), st.sampled_from([b"1", b"2"]))


@given(indexes, indexes)
def test_the_difference_leads_from_one_to_the_other(before: dict[bytes, bytes], after: dict[bytes, bytes]) -> None:
    result = dict(before)
    for change in compared(*([line(path, content) for path, content in one.items()] for one in (before, after))):
        if change.after is None:
            del result[change.path]
        else:
            result[change.path] = after[change.path]
        assert (change.before is None) == (change.path not in before)
    assert result == after


def test_indexes_in_another_order_are_compared_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """More lines than may wait in memory are left to the sorting."""
    monkeypatch.setattr(difference_module, "_MOST_WAITING", 10)
    before = [line(b"%03d" % number) for number in range(100)]
    after = [line(b"new"), *reversed(before[1:])]
    assert [str(change)[:5] for change in compared(before, after)] == ["- 000", "+ new"]
