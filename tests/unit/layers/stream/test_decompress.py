from __future__ import annotations

import bz2
import gzip
import io
import lzma
import threading
from typing import TYPE_CHECKING

import pytest
import zstandard

from publisher.errors import BlobError, LayerError
from publisher.layers.stream.decompress import decompressed

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = b"".join(map(b"%d\n".__mod__, range(400_000)))
HALF = len(CONTENT) // 2
GZIP = gzip.compress(CONTENT, 1)
SKIPPABLE = bytes([0x5A, 0x2A, 0x4D, 0x18]) + (5).to_bytes(4, "little") + b"table"


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def inflate(blob: bytes, portion: int = 1 << 20) -> bytes:
    source = io.BytesIO(blob)
    with decompressed(lambda size: source.read(min(size, portion))) as read:
        out = b""
        while data := read(1 << 20):
            out += data
        assert read(1) == b""
    return out


@pytest.mark.parametrize(
    "blob",
    [
        CONTENT,
        GZIP,
        gzip.compress(CONTENT[:HALF], 1) + gzip.compress(b"") + gzip.compress(CONTENT[HALF:], 1),
        zstd(CONTENT),
        zstd(CONTENT[:HALF]) + SKIPPABLE + zstd(CONTENT[HALF:]),
        SKIPPABLE + zstd(CONTENT),
    ],
    ids=["plain", "gzip", "gzip of several members", "zstd", "zstd of several frames", "zstd that begins with a skippable frame"],
)
@pytest.mark.parametrize("portion", [1 << 20, 1000])
def test_the_compression_is_detected_from_the_first_bytes(blob: bytes, portion: int) -> None:
    assert inflate(blob, portion) == CONTENT


@pytest.mark.parametrize("blob", [b"", b"\x1f", b"abc"])
def test_blobs_shorter_than_a_magic_number_are_returned_unchanged(blob: bytes) -> None:
    assert inflate(blob) == blob


@pytest.mark.parametrize(("blob", "name"), [(bz2.compress(b"x"), "bzip2"), (lzma.compress(b"x"), "xz")])
def test_compressions_outside_the_specification_are_refused(blob: bytes, name: str) -> None:
    with pytest.raises(LayerError, match=name):
        inflate(blob)


def flipped(blob: bytes, at: int) -> bytes:
    spoilt = bytearray(blob)
    spoilt[at] ^= 0xFF
    return bytes(spoilt)


CHECKED = zstandard.ZstdCompressor(write_checksum=True).compress(CONTENT)


@pytest.mark.parametrize(
    "blob",
    [
        GZIP[:-4],
        GZIP[:100_000],
        flipped(GZIP, 100_000),
        flipped(GZIP, -2),
        flipped(CHECKED, 100_000),
        flipped(CHECKED, -2),
    ],
)
def test_damaged_data_is_refused(blob: bytes) -> None:
    with pytest.raises(LayerError, match=r"damaged or truncated.*push it again"):
        inflate(blob)


def test_data_after_the_end_of_gzip_is_not_called_damage() -> None:
    with pytest.raises(LayerError, match=r"other data after the end of its gzip data \(the image's owner has to"):
        inflate(GZIP + b"trailing garbage")
    assert inflate(GZIP + bytes(100)) == CONTENT


def test_a_truncated_zstd_frame_ends_early() -> None:
    assert len(inflate(CHECKED[:-1000])) < len(CONTENT)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_errors_of_the_source_are_not_translated(compress: Callable[[bytes], bytes]) -> None:
    portions = iter([compress(CONTENT)[:1000]])

    def read(_: int) -> bytes:
        try:
            return next(portions)
        except StopIteration:
            raise BlobError("the registry stopped") from None

    with decompressed(read) as inflated, pytest.raises(BlobError, match="the registry stopped"):
        list(iter(lambda: inflated(1 << 20), b""))


def test_the_decompression_thread_ends_with_the_block() -> None:
    source = io.BytesIO(gzip.compress(bytes(1 << 28)))
    before = threading.active_count()
    with decompressed(source.read) as read:
        assert read(10) == bytes(10)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_a_window_of_gigabytes_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    blob = compressor.compress(CONTENT) + compressor.flush()
    with pytest.raises(LayerError, match=r"more than 128 MiB of memory, .* without zstd --long"):
        inflate(blob)
