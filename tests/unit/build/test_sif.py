from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

import pytest

from publisher.build.sif import DATA_OFFSET, write_sif_header
from publisher.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = bytes(range(32))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file with the magic number of a squashfs at its offset, and zeros in front."""
    path = tmp_path / "image.sif"
    path.write_bytes(bytes(DATA_OFFSET) + b"hsqs" + b"d" * 996)
    return path


def test_the_header_names_the_image(image: Path) -> None:
    write_sif_header(image, architecture="arm64", identity=IDENTITY, epoch=1_600_000_000)
    content = image.read_bytes()
    assert content[:31] == b"#!/usr/bin/env run-singularity\n"
    assert content[32:48] == b"SIF_MAGIC\x0001\x00" + b"04\x00"
    assert uuid.UUID(bytes=content[48:64]).version == 4
    times_and_table = struct.unpack("<8q", content[64:128])
    assert times_and_table == (1_600_000_000, 1_600_000_000, 47, 48, 4096, 48 * 585, DATA_OFFSET, 1000)


def test_the_only_descriptor_is_the_primary_system_partition(image: Path) -> None:
    write_sif_header(image, architecture="amd64", identity=IDENTITY, epoch=7)
    content = image.read_bytes()
    kind, used, number, group, link = struct.unpack("<iBIII", content[4096 : 4096 + 17])
    assert (kind, used, number, group, link) == (0x4004, 1, 1, 0xF0000001, 0)
    assert struct.unpack("<7q", content[4113 : 4113 + 56]) == (DATA_OFFSET, 1000, 1000, 7, 7, 0, 0)
    assert content[4113 + 56 + 128 : 4113 + 56 + 128 + 11] == struct.pack("<ii3s", 1, 2, b"02")
    assert content[4096 + 585 : DATA_OFFSET] == bytes(DATA_OFFSET - 4096 - 585)


def test_the_data_is_unchanged_and_equal_images_are_equal_files(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sif"
    other.write_bytes(image.read_bytes())
    for path in (image, other):
        write_sif_header(path, architecture="amd64", identity=IDENTITY, epoch=7)
    assert image.read_bytes() == other.read_bytes()
    assert image.read_bytes()[DATA_OFFSET:] == b"hsqs" + b"d" * 996
    write_sif_header(other, architecture="amd64", identity=IDENTITY[::-1], epoch=7)
    assert image.read_bytes() != other.read_bytes()


def test_what_cannot_be_a_sif_is_refused(image: Path) -> None:
    before = image.read_bytes()
    with pytest.raises(BuildError, match="no code for the architecture loong64"):
        write_sif_header(image, architecture="loong64", identity=IDENTITY, epoch=7)
    assert image.read_bytes() == before
    image.write_bytes(bytes(DATA_OFFSET + 100))
    with pytest.raises(BuildError, match="no squashfs"):
        write_sif_header(image, architecture="amd64", identity=IDENTITY, epoch=7)
