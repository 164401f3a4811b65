from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.errors import LayerError
from publisher.layers.header import make_header
from publisher.layers.scan import Scanner
from tests.support.images import raw_tar

if TYPE_CHECKING:
    from collections.abc import Callable


def trickle(content: bytes, portion: int) -> Callable[[int], bytes]:
    """Return a ``read`` function that returns at most ``portion`` bytes at a time."""
    source = io.BytesIO(content)
    return lambda size: source.read(min(size, portion))


def names(archive: bytes) -> list[bytes]:
    scanner = Scanner(io.BytesIO(archive).read)
    found = []
    while (member := scanner.next_member()) is not None:
        found.append(member.name)
        scanner.drop()
    scanner.finish()
    return found


@pytest.mark.parametrize("portion", [1, 511, 512, 1000, 1 << 20])
def test_kept_members_are_copied_byte_by_byte(portion: int) -> None:
    members = [
        raw_tar.file(b"a", b"1" * 700),
        raw_tar.pax((b"path", b"n" * 200)) + raw_tar.file(b"b"),
        raw_tar.file(b"c", b""),
        raw_tar.file(b"d"),
    ]
    out = bytearray()
    scanner = Scanner(trickle(b"".join(members) + raw_tar.END, portion), out.extend)
    digests = []
    for keep in (True, False, True, True):
        member = scanner.next_member()
        assert member is not None
        if keep:
            digests.append(scanner.keep(member, None, digest=True))
        else:
            scanner.drop()
    assert scanner.next_member() is None
    scanner.flush()
    assert bytes(out) == members[0] + members[2] + members[3]
    assert digests == [hashlib.sha256(b"1" * 700).digest(), b"", hashlib.sha256(b"content").digest()]


@pytest.mark.parametrize("portion", [1, 1000, 1 << 20])
def test_another_header_replaces_all_of_a_members_headers(portion: int) -> None:
    out = bytearray()
    scanner = Scanner(
        trickle(raw_tar.pax((b"path", b"long")) + raw_tar.file(b"a") + raw_tar.file(b"b") + raw_tar.END, portion), out.extend
    )
    member = scanner.next_member()
    assert member is not None
    replacement = make_header(b"new", b"0", mode=0o644, size=7)
    scanner.keep(member, replacement, digest=False)
    assert scanner.next_member() is not None
    scanner.drop()
    scanner.flush()
    assert bytes(out) == replacement + raw_tar.data(b"content")


def test_an_archive_may_end_without_zero_blocks_and_continue_after_them() -> None:
    assert names(raw_tar.file(b"a")) == [b"a"]
    assert names(raw_tar.file(b"a") + bytes(512)) == [b"a"]
    assert names(raw_tar.file(b"a") + raw_tar.END + b"anything") == [b"a"]
    assert names(b"") == []


@pytest.mark.parametrize("end", [raw_tar.END, b"", bytes(512)])
def test_an_archive_may_end_after_an_extended_header(end: bytes) -> None:
    archive = raw_tar.file(b"a") + raw_tar.pax((b"path", b"b")) + end
    assert names(archive) == [b"a"]
    out = bytearray()
    scanner = Scanner(io.BytesIO(archive).read, out.extend)
    member = scanner.next_member()
    assert member is not None
    scanner.keep(member, None, digest=False)
    assert scanner.next_member() is None
    scanner.flush()
    assert bytes(out) == raw_tar.file(b"a")


@pytest.mark.parametrize("portion", [1, 1000, 1 << 20])
@pytest.mark.parametrize("missing", [1, 100, 425])
@pytest.mark.parametrize("header", [None, make_header(b"new", b"0", mode=0o644, size=599)])
def test_the_padding_of_the_last_member_may_be_missing(missing: int, portion: int, header: bytes | None) -> None:
    archive = raw_tar.file(b"a", b"1" * 599)
    out = bytearray()
    scanner = Scanner(trickle(archive[:-missing], portion), out.extend)
    member = scanner.next_member()
    assert member is not None
    assert scanner.keep(member, header, digest=True) == hashlib.sha256(b"1" * 599).digest()
    assert scanner.next_member() is None
    scanner.finish()
    assert bytes(out) == (header or archive[:512]) + archive[512:]
    assert names(archive[:-missing]) == [b"a"]


def test_a_global_header_takes_the_extended_headers_before_it() -> None:
    front, record = raw_tar.pax((b"path", b"long")), raw_tar.pax((b"comment", b"c"), kind=b"g")
    assert names(front + record + raw_tar.file(b"a")) == [b"a"]
    assert names(record + front + raw_tar.file(b"a")) == [b"long"]
    assert names(raw_tar.long_name(b"long") + record + raw_tar.file(b"a")) == [b"a"]
    with pytest.raises(LayerError, match="malformed"):
        names(raw_tar.file(b"pax", b"junk", b"g") + raw_tar.file(b"a"))


def test_the_offset_of_a_member_is_known() -> None:
    scanner = Scanner(io.BytesIO(raw_tar.file(b"a") + raw_tar.pax((b"path", b"c")) + raw_tar.file(b"b") + raw_tar.END).read)
    scanner.next_member()
    scanner.drop()
    scanner.next_member()
    assert (scanner.offset, scanner.count) == (1024, 2)


SPARSE = raw_tar.header(b"a", b"S", size=5, magic=raw_tar.GNU, tail=raw_tar.sparse_map((0, 5), real=9, more=True))


@pytest.mark.parametrize(
    ("archive", "problem"),
    [
        (b"this is no tar archive".ljust(2048, b"."), "is not a tar archive"),
        (b"short", "is not a tar archive"),
        (raw_tar.file(b"a") + b"x" * 512, "damaged: wrong checksum in the header of entry 2"),
        (raw_tar.file(b"a") + raw_tar.header(b"b")[:300], "truncated within a header"),
        (raw_tar.file(b"a", b"1" * 600)[:-512], "truncated within the data of entry 1"),
        (raw_tar.header(b"a", size=1 << 30), "truncated within the data of entry 1"),
        (raw_tar.pax((b"path", b"b" * 600))[:1024], "truncated within an extended header"),
        (raw_tar.header(b"x", b"x", size=(1 << 20) + 1), "extended header of 1048577 bytes"),
        (raw_tar.file(b"x", bytes(1 << 20), b"L") * 5, "too many extended headers"),
        (raw_tar.file(b"a") + bytes(700), "truncated within the zero blocks at its end"),
        (raw_tar.file(b"a", b"1" * 600)[:-425], "truncated within the data of entry 1"),
        (raw_tar.header(b"a", b"S", magic=raw_tar.USTAR, tail=raw_tar.sparse_map((0, 0), real=0)), "another format than GNU"),
        (raw_tar.file(b"a") + bytes(512) + raw_tar.file(b"b"), "continues after a zero block"),
        (SPARSE, "truncated within a sparse header"),
        (
            raw_tar.pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
            + raw_tar.file(b"a"),
            "map",
        ),
        (raw_tar.file(b"a", b"12345", b"S", magic=raw_tar.GNU, tail=raw_tar.sparse_map((0, 600), real=600)), "as much data as"),
        (raw_tar.file(b"a", b"12345", b"S", magic=raw_tar.GNU, tail=raw_tar.sparse_map((0, 2), real=600)), "as much data as"),
    ],
)
def test_invalid_archives_are_refused_with_the_reason(archive: bytes, problem: str) -> None:
    with pytest.raises(LayerError, match=problem):
        names(archive)


@pytest.mark.untraced
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.sampled_from(["drop", "keep", "replace"]), st.integers(0, 3000), st.booleans()), max_size=6),
    st.integers(1, 4000),
)
def test_dropped_members_leave_nothing_whatever_the_portions(members: list[tuple[str, int, bool]], portion: int) -> None:
    archive, expected = b"", b""
    header = make_header(b"new", b"0", mode=0o600)
    for number, (action, size, extended) in enumerate(members):
        content = bytes([number + 1]) * size
        whole = (raw_tar.pax((b"path", b"long")) if extended else b"") + raw_tar.file(b"a", content)
        archive += whole
        expected += {"drop": b"", "keep": whole, "replace": header + raw_tar.data(content)}[action]
    out = bytearray()
    scanner = Scanner(trickle(archive + raw_tar.END, portion), out.extend)
    for action, size, _ in members:
        member = scanner.next_member()
        assert member is not None
        if action == "drop":
            scanner.drop()
        else:
            scanner.keep(member, header if action == "replace" else None, digest=bool(size % 2))
    scanner.finish()
    assert bytes(out) == expected
