from __future__ import annotations

import gzip
import io
import os
import threading
from typing import TYPE_CHECKING

import pytest

from publisher.errors import LayerError
from publisher.layers.emit import Emitter, Output
from publisher.layers.flatten import flatten
from publisher.layers.stream.uncompressed import copy_path, delete_copies
from tests.support.images.layers import directory, file, indexed, tar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAMES = [f"{number:02}" for number in range(80)]
LOWER = tar(file(name, os.urandom(1000) * (int(name) % 5) * 40, mode=0o600 if int(name) % 7 == 1 else 0o644) for name in NAMES)
UPPER = tar([*(file(f".wh.{name}", b"") for name in NAMES if int(name) % 11 in {2, 3}), directory("d"), file("d/last", b"z" * 3)])
PAIR = [gzip.compress(LOWER), UPPER]


def made(where: Path, copies: Sequence[bytes]) -> tuple[list[Path], list[Path]]:
    """Write the layers, their header indexes, and uncompressed copies of them."""
    blobs, indexes = indexed(PAIR, where)
    for blob, content in zip(blobs, copies, strict=False):
        copy_path(where, blob).write_bytes(content)
    return blobs, indexes


def emitted(blobs: list[Path], indexes: list[Path]) -> bytes:
    out = io.BytesIO()
    emitter = Emitter(Output(out.write), 1 << 32)
    emitter.write_layers(flatten(indexes).finish(), blobs, indexes, lambda _: None, blobs[0].parent)
    return out.getvalue()


def emitted_to_a_pipe(blobs: list[Path], indexes: list[Path]) -> bytes:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream:
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(stream.read()))
        reader.start()
        with os.fdopen(write, "wb", buffering=0) as pipe:
            emitter = Emitter(Output(pipe.write, pipe.fileno()), 1 << 32)
            emitter.write_layers(flatten(indexes).finish(), blobs, indexes, lambda _: None, blobs[0].parent)
        reader.join()
    return received[0]


@pytest.mark.parametrize("emit", [emitted, emitted_to_a_pipe])
@pytest.mark.parametrize("copies", [[LOWER, UPPER], [LOWER]])
def test_the_stream_is_the_same_as_from_the_blobs_which_are_not_read(emit: object, copies: list[bytes], tmp_path: Path) -> None:
    assert callable(emit)
    blobs, indexes = made(tmp_path, [])
    expected = emit(blobs, indexes)
    made(tmp_path, copies)
    for blob in blobs[: len(copies)]:
        blob.write_bytes(b"BZh: refused if it were read")
    assert emit(blobs, indexes) == expected


def linked(copy: Path) -> None:
    copy.rename(copy.with_name("elsewhere"))
    copy.symlink_to("elsewhere")


def replaced_by_a_fifo(copy: Path) -> None:
    copy.unlink()
    os.mkfifo(copy)


@pytest.mark.parametrize("spoil", [lambda copy: copy.chmod(0o666), linked, replaced_by_a_fifo], ids=["others", "link", "fifo"])
def test_a_copy_that_others_could_have_written_is_not_used(spoil: object, tmp_path: Path) -> None:
    assert callable(spoil)
    blobs, indexes = made(tmp_path, [])
    expected = emitted(blobs, indexes)
    made(tmp_path, [tar([file("evil", b"x" * 5000)])])
    spoil(copy_path(tmp_path, blobs[0]))
    assert emitted(blobs, indexes) == expected


@pytest.mark.parametrize("emit", [emitted, emitted_to_a_pipe])
def test_a_copy_that_is_too_short_is_reported(emit: object, tmp_path: Path) -> None:
    assert callable(emit)
    blobs, indexes = made(tmp_path, [LOWER[: len(LOWER) // 2]])
    with pytest.raises(LayerError, match=r"shorter than the layer|fewer entries|truncated"):
        emit(blobs, indexes)


def test_progress_counts_the_bytes_of_the_blob_on_the_way(tmp_path: Path) -> None:
    blobs, indexes = made(tmp_path, [LOWER])
    told: list[int] = []
    Emitter(Output(lambda _: None), 1 << 32).write_layers(flatten(indexes).finish(), blobs, indexes, told.append, tmp_path)
    assert sum(told) == sum(map(len, PAIR))
    assert len(told) > 5


def test_copies_are_deleted_and_blobs_stay(tmp_path: Path) -> None:
    blobs, _ = made(tmp_path, [LOWER])
    delete_copies(tmp_path, blobs)
    assert not copy_path(tmp_path, blobs[0]).exists()
    assert blobs[0].exists()
    delete_copies(tmp_path, blobs)
    delete_copies(None, blobs)
