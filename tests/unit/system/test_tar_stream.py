"""Headers as Python's and GNU tar's readers find them, and streams that are cut off wherever a write may end."""

from __future__ import annotations

import ctypes
import ctypes.util
import io
import itertools
import os
import random
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from publisher.system.tar_stream import TarStream, header
from tests.support.images.layers import tree_on_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

BLOCK, PAGE = 512, 4096
END = bytes(2 * BLOCK)


class Member(NamedTuple):
    """A file of a stream, its content in parts; ``held`` is whether the stream is held after it."""

    head: bytes
    parts: tuple[bytes, ...]
    held: bool

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))

    @property
    def whole(self) -> bytes:
        return self.head + b"".join(self.parts) + bytes(-self.size % BLOCK)


def member(name: bytes, *parts: bytes, held: bool = False) -> Member:
    return Member(header(name, b"0", mode=0o644, size=sum(map(len, parts))), parts, held)


def write_all(members: Sequence[Member], write: Callable[[bytes], object], *, held: bool = True) -> None:
    stream = TarStream(lambda data: write(bytes(data)))
    for one in members:
        stream.add(one.head, one.parts, one.size)
        if one.held:
            stream.hold()
    if held:
        stream.hold()
    stream.end()


def whole_stream(members: Sequence[Member]) -> bytes:
    return b"".join(one.whole for one in members) + END


UNITS = st.binary(min_size=1, max_size=9).map(lambda text: text.translate(None, b"\0/")).filter(bool)
LENGTHS = st.sampled_from([1, 98, 99, 100, 101, 255, 256, 511, 512, 513, 1000, 1023, 1024, 4000])
TEXTS = st.builds(lambda unit, length: (unit * length)[:length], UNITS, LENGTHS)
IDS = st.sampled_from([0, 65_535, 65_536, (1 << 21) - 1, 1 << 21, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1)
SIZES = st.sampled_from([0, 1, 511, 512, (1 << 33) - 1, 1 << 33, (1 << 63) - 1]) | st.integers(0, 1 << 40)
TIMES = st.sampled_from([0, (1 << 31), (1 << 33) - 1]) | st.integers(0, (1 << 33) - 1)
NUMBERS = st.fixed_dictionaries({"mode": st.integers(0, 0o7777), "uid": IDS, "gid": IDS, "size": SIZES, "mtime": TIMES})
PART_SIZES = st.sampled_from([1, 511, 512, 513, 4096, 100_000, 1 << 20, (1 << 20) + 4097, 2_500_000]) | st.integers(1, 9000)
PARTS = st.lists(st.builds(lambda size, byte: bytes([byte]) * size, PART_SIZES, st.integers(0, 255)), max_size=4)
MEMBERS = st.lists(st.builds(lambda name, parts, held: member(name, *parts, held=held), TEXTS, PARTS, st.booleans()), max_size=7)
EMPTY_FILES = [member(b"%d" % number) for number in range(5000)]


@given(TEXTS, TEXTS, st.sampled_from([b"0", b"1", b"2", b"5", b"6"]), NUMBERS)
def test_pythons_reader_finds_what_was_written(name: bytes, link: bytes, kind: bytes, numbers: dict[str, int]) -> None:
    link, numbers = link if kind in {b"1", b"2"} else b"", numbers if kind == b"0" else {**numbers, "size": 0}
    blocks = header(name, kind, link=link, **numbers)
    with tarfile.open(fileobj=io.BytesIO(blocks), encoding="utf-8", errors="surrogateescape") as archive:
        info = archive.next()
    assert info is not None
    assert (info.offset_data, info.offset_data % BLOCK) == (len(blocks), 0)
    assert (os.fsencode(info.name), info.type, os.fsencode(info.linkname)) == (name, kind, link)
    assert {field: getattr(info, field) for field in numbers} == numbers
    assert all(text + b"\0" in blocks for text in (name, link) if len(text) > 100), "some readers look for the end"


LONG = {b"a": 99, b"b": 100, b"c": 101, b"d": 255, b"e": 1000, b"\xff": 600}
NAMES = [
    *(((letter * 33 + b"/") * 33)[:length] for letter, length in LONG.items()),
    b"caf\xe9",
    b"a\nb",
    b"-rf",
    b"\\ *",
    b"x" * 255,
]


def test_gnu_tar_unpacks_what_was_written(tmp_path: Path) -> None:
    uid, gid, mtime = os.geteuid(), os.getegid(), 1_700_000_000
    blocks = b""
    expected: dict[bytes, tuple[int, int, bytes, set[bytes]]] = {}

    def add(name: bytes, kind: bytes, mode: int, content: bytes = b"", link: bytes = b"") -> None:
        nonlocal blocks
        head = header(name, kind, mode=mode, uid=uid, gid=gid, size=len(content), mtime=mtime, link=link)
        blocks += head + content + bytes(-len(content) % BLOCK)

    for number, name in enumerate(NAMES):
        again, link = b"again %d" % number, b"link %d" % number
        add(name, b"0", 0o4640 + number, b"I am " + name)
        add(again, b"1", 0o600, link=name)
        add(link, b"2", 0o777, link=name)
        expected |= {path: (stat.S_IFREG, 0o4640 + number, b"I am " + name, {name, again}) for path in (name, again)}
        expected[link] = stat.S_IFLNK, 0o777, name, {link}
    for name, kind, found_kind in ((b"d" * 120, b"5", stat.S_IFDIR), (b"p" * 200, b"6", stat.S_IFIFO)):
        add(name, kind, 0o1715)
        expected[name] = found_kind, 0o1715, b"", {name}
    subprocess.run(["tar", "-xpf", "-", "-C", tmp_path], input=blocks + END, check=True, capture_output=True)
    found = {path: node for path, node in tree_on_disk(tmp_path).items() if path in expected or node.kind != stat.S_IFDIR}
    assert {path: (node.kind, node.mode, node.content, set(node.names)) for path, node in found.items()} == expected
    assert {(node.uid, node.gid, node.mtime) for node in found.values()} == {(uid, gid, mtime)}


def test_gnu_tar_lists_large_numbers(tmp_path: Path) -> None:
    size = (8 << 30) + 5
    with (tmp_path / "archive").open("wb") as archive:
        archive.write(header(b"large", b"0", mode=0o4755, uid=1 << 21, gid=(1 << 32) - 2, size=size, mtime=1 << 32))
        archive.seek(BLOCK + size + -size % BLOCK)  # a hole
        archive.write(header(b"next", b"2", mode=0o777, uid=(1 << 21) - 1, gid=65_536, link=b"to") + END)
    argv = ["tar", "--numeric-owner", "--utc", "-tvf", str(tmp_path / "archive")]
    lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["-rwsr-xr-x", "2097152/4294967294", str(size), "2106-02-07", "06:28", "large"],
        ["lrwxrwxrwx", "2097151/65536", "0", "1970-01-01", "00:00", "next", "->", "to"],
    ]


@settings(max_examples=60)
@given(members=MEMBERS, held=st.booleans())
@example(members=[member(b"a", bytes((1 << 20) + PAGE + 1))], held=True)
@example(members=EMPTY_FILES, held=True)
@example(members=EMPTY_FILES[:100], held=False)
def test_a_write_that_is_cut_off_ends_within_a_block(members: list[Member], held: bool) -> None:
    writes: list[bytes] = []
    write_all(members, writes.append, held=held)
    assert b"".join(writes) == whole_stream(members)
    assert len(writes[0]) <= PAGE
    begins = list(itertools.accumulate(map(len, writes), initial=0))
    ends = {begin + cut for begin, data in zip(begins, writes, strict=False) for cut in range(0, len(data), PAGE)}
    assert sorted(end for end in ends | set(begins) if end % BLOCK == 0) == [0, begins[-1]]


@settings(max_examples=60)
@given(MEMBERS)
def test_a_stream_that_is_held_lacks_the_end_of_its_last_member(members: list[Member]) -> None:
    out, expected = bytearray(), b""
    stream = TarStream(out.extend)
    for one in members:
        stream.add(one.head, one.parts, one.size)
        expected += one.whole
        for _ in range(1 + one.held):
            stream.hold()
            assert 0 < len(expected) - len(out) < BLOCK
            assert expected.startswith(out)
    stream.end()
    assert out == expected + END


def test_a_stream_keeps_little_in_memory() -> None:
    out = bytearray()
    stream = TarStream(out.extend)

    def content() -> Iterator[bytes]:
        for number in range(1000):
            yield bytes(1 << 16)
            assert (number << 16) - len(out) < 2 << 20

    stream.add(b"", content())
    assert len(out) > 900 << 16


class FullPipe:
    """A pipe whose reader takes some bytes whenever it is full; ``stops`` is how much was written after each write(2)."""

    def __init__(self, chance: random.Random) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._chance = chance
        self.stops = [0]

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                count = os.write(self._write_end, rest)
            except BlockingIOError:
                os.read(self._read_end, self._chance.randint(1, 70_000))
                continue
            self.stops.append(self.stops[-1] + count)
            rest = rest[count:]

    def close(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)


@pytest.mark.parametrize("held", [True, False])
def test_a_write_to_a_full_pipe_ends_within_a_block(held: bool) -> None:
    for seed in range(30):
        chance = random.Random(seed)
        first = member(b"x", bytes(chance.choice([0, 5, 512, 70_000, 1_500_000])), held=seed % 5 == 0)
        members = [first, *EMPTY_FILES[: chance.randrange(200, 1000)]]
        pipe = FullPipe(chance)
        write_all(members, pipe.write, held=held)
        pipe.close()
        assert len(pipe.stops) > 3
        assert [stop for stop in pipe.stops if stop % BLOCK == 0] == [0, len(whole_stream(members))]


class Libarchive:
    """The reader of ``cvmfs_server ingest``, which stops where this reader finds a fatal error."""

    FATAL, END = -30, 1

    def __init__(self) -> None:
        name = ctypes.util.find_library("archive")
        if name is None:
            pytest.skip("NOT TESTED: streams that are cut off, as libarchive reads them; it is not installed")
        self._library = ctypes.CDLL(name)
        self._library.archive_read_new.restype = ctypes.c_void_p

    def last_status(self, stream: bytes) -> int:
        """Read all members; return what the last attempt to find one gave."""
        library, entry = self._library, ctypes.c_void_p()
        reader = ctypes.c_void_p(library.archive_read_new())
        library.archive_read_support_format_tar(reader)
        library.archive_read_open_memory(reader, stream, ctypes.c_size_t(len(stream)))
        status = 0
        while status == 0:
            status = library.archive_read_next_header(reader, ctypes.byref(entry))
        library.archive_read_free(reader)
        return int(status)


def test_libarchive_refuses_a_stream_that_is_cut_off() -> None:
    reader = Libarchive()
    members = [member(b"a", b"1" * 700), member(b"b"), member(b"n" * 150, b"2"), *EMPTY_FILES[:30], member(b"c", b"3" * 5000)]
    writes: list[bytes] = []
    write_all(members, writes.append)
    whole = whole_stream(members)
    cuts = {*itertools.accumulate(map(len, writes[:-1])), *range(len(writes[0]), len(whole) - len(END), BLOCK)}
    assert {cut: reader.last_status(whole[:cut]) for cut in cuts} == dict.fromkeys(cuts, reader.FATAL)
    assert reader.last_status(whole) == reader.END
    assert reader.last_status(members[0].whole) == reader.END, "what the writes avoid"
