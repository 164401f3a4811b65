from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.fileindex.format import FileIndexWriter, IndexedFile, knows_xattrs, read_file_index

if TYPE_CHECKING:
    import pytest


def test_the_format_is_the_one_that_is_described(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("index") / "files"
    digest = hashlib.sha256(b"x").digest()
    with path.open("wb") as out:
        writer = FileIndexWriter(out)
        writer.add(b"0", b"a b", 0o644, 1, 2, 3, 4, digest)
        writer.add(b"1", b"c", 0o644, 1, 2, 0, 4, b"a b")
        writer.add(b"2", b"caf\xe9\\", 0o777, 0, 0, 0, 5, b"/t\n")
        writer.add(b"5", b"d", 0o1755, 0, 0, 0, 6, b"")
        writer.add(b"6", b"p", 0o600, 0, 0, 0, 7, b"", {})
        writer.add(b"2", b"x", 0o777, 0, 0, 0, 8, b"t", {b"user.b": b"2", b"user.a": b"1"})
        writer.close()
    assert (writer.files, writer.unpacked_size) == (6, 3)
    xattrs = hashlib.sha256(b"6 1 user.a16 1 user.b2").hexdigest().encode()
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as text:
        assert text.read() == (
            b"#xattrs\n"
            b"f 644 1 2 3 4 " + digest.hex().encode() + b"\ta\\x20b\n"
            b"h 644 1 2 0 4 a\\x20b\tc\n"
            b"l 777 0 0 0 5 /t\\x0a\tcaf\\xe9\\x5c\n"
            b"d 1755 0 0 0 6 -\td\n"
            b"p 600 0 0 0 7 -\tp\n"
            b"l 777 0 0 0 8 t " + xattrs + b"\tx\n"
        )


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.binary(min_size=1), st.binary(min_size=1).filter(lambda target: target != b"-")), max_size=5),
    st.integers(1, 700),
)
def test_whatever_the_names_the_lines_come_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[tuple[bytes, bytes]], times: int
) -> None:
    path = tmp_path_factory.mktemp("index") / "files"
    with path.open("wb") as out:
        writer = FileIndexWriter(out)
        for name, target in names * times:
            writer.add(b"2", name, 0o777, 1, 2, 0, 3, target)
        writer.close()
    expected = [IndexedFile("l", name, 0o777, 1, 2, 0, 3, target) for name, target in names * times]
    assert list(read_file_index(io.BytesIO(path.read_bytes()))) == expected


def test_an_index_of_an_older_version_can_be_read_and_does_not_know_extended_attributes() -> None:
    old = zstandard.compress(b"l 777 1 2 0 3 target\tpath\n")
    assert list(read_file_index(io.BytesIO(old))) == [IndexedFile("l", b"path", 0o777, 1, 2, 0, 3, b"target")]
    assert not knows_xattrs(io.BytesIO(old))
    assert not knows_xattrs(io.BytesIO(zstandard.compress(b"")))
    new = io.BytesIO()
    FileIndexWriter(new).close()
    assert knows_xattrs(io.BytesIO(new.getvalue()))
