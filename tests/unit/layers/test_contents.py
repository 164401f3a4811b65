"""Contents of a layer's files, found by its header index; tests of the own squasher have whole images."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from publisher.errors import LayerError
from publisher.layers.contents import LayerContents, Place
from publisher.layers.flatten import flatten
from publisher.layers.listing import layer_entries
from publisher.layers.stream.layer_stream import LayerStream, opened_layer
from publisher.layers.stream.uncompressed import copy_path
from tests.support.images.layers import Entry, directory, file, indexed, symlink, tar
from tests.support.images.stacks import CAPABILITY, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.layers.listing import ListedEntry

SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse", "GNU.sparse.realsize": "9000"}
FILES = {
    b"a": b"first",
    b"d/large": bytes(range(256)) * 12_000,
    b"named": b"by a user",
    b"sparse": bytes(1000) + b"x" * 3000 + bytes(4000) + b"y" * 500 + bytes(500),
    b"able": b"with a capability",
    b"last": b"of all",
}
ENTRIES = [
    *(file("a", FILES[b"a"]), directory("d"), file("d/large", FILES[b"d/large"]), symlink("l", "a")),
    file("named", FILES[b"named"], uname="nobody"),
    Entry("file", "x", b"2\n1000\n3000\n8000\n500\n".ljust(512, b"\0") + b"x" * 3000 + b"y" * 500, pax=SPARSE),
    *(file("able", FILES[b"able"], pax=attributes(security__capability=CAPABILITY)), file("last", FILES[b"last"])),
]


@pytest.fixture
def layer(tmp_path: Path) -> tuple[Path, Path]:
    """The blob of a layer, and its header index."""
    blobs, indexes = indexed([tar(ENTRIES)], tmp_path)
    return blobs[0], indexes[0]


def listed(index: Path) -> Iterator[ListedEntry]:
    return layer_entries(flatten([index]).finish(), 0, index, 1 << 31)


def pieces(contents: LayerContents, entry: ListedEntry, size: int) -> bytes:
    assert entry.place is not None
    content = contents.of(entry.place, entry.size)
    return b"".join(content(position, min(size, entry.size - position)) for position in range(0, entry.size, size))


@pytest.mark.parametrize("size", [100, 131_072, 1 << 22])
@pytest.mark.parametrize("copied", [False, True])
def test_each_file_has_its_content_whatever_its_headers_are(copied: bool, size: int, layer: tuple[Path, Path]) -> None:
    blob, index = layer
    if copied:
        copy_path(blob.parent, blob).write_bytes(blob.read_bytes())
    with opened_layer(blob, blob.parent, lambda _: None) as stream:
        assert (stream.copy is not None) == copied
        contents = LayerContents(stream)
        found = {entry.path: pieces(contents, entry, size) for entry in listed(index) if entry.kind == b"0"}
    assert found == FILES


def test_contents_that_nobody_asks_for_are_passed_over(layer: tuple[Path, Path]) -> None:
    with opened_layer(layer[0], None, lambda _: None) as stream:
        contents = LayerContents(stream)
        entries = {entry.path: entry for entry in listed(layer[1])}
        assert pieces(contents, entries[b"named"], 1000) == FILES[b"named"]
        assert pieces(contents, entries[b"last"], 1000) == FILES[b"last"]
        with pytest.raises(LayerError, match="not where it was"):
            pieces(contents, entries[b"a"], 1000)


def test_extended_attributes_are_those_of_the_headers(layer: tuple[Path, Path]) -> None:
    with opened_layer(layer[0], None, lambda _: None) as stream:
        contents = LayerContents(stream)
        entry = next(entry for entry in listed(layer[1]) if entry.xattrs)
        assert entry.place is not None
        assert contents.xattrs(entry.place) == ((b"security.capability", CAPABILITY),)
        assert pieces(contents, entry, 1000) == FILES[b"able"]


def test_a_layer_that_has_changed_is_noticed() -> None:
    stream = tar([file("a", b"12345")])
    short, other = LayerContents(LayerStream(io.BytesIO(stream[:514]).read)), LayerContents(LayerStream(io.BytesIO(stream).read))
    with pytest.raises(LayerError, match="shorter than when it was downloaded"):
        short.of(Place(0, 1024, is_usual=True), 5)(0, 5)
    with pytest.raises(LayerError, match="other entries than when it was downloaded"):
        other.of(Place(0, 1024, is_usual=False), 6)(0, 6)
    empty = LayerContents(LayerStream(io.BytesIO(bytes(1024)).read))
    with pytest.raises(LayerError, match="other entries than when it was downloaded"):
        empty.of(Place(0, None, is_usual=True), 5)(0, 5)


def test_what_was_read_of_a_layer_is_reported_and_the_rest_at_its_end(layer: tuple[Path, Path]) -> None:
    told: list[int] = []
    with opened_layer(layer[0], None, told.append) as stream:
        stream.read(10)
        before = sum(told)
    assert 0 < before <= sum(told) == layer[0].stat().st_size
