"""Squashfs images of the real mksquashfs, read back; and damaged ones, of which none may do anything but raise."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from publisher.sifs.squashfs import ERRORS, Squashfs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 128 << 10
OFFSET = 4096
CONTENTS = {
    "empty": b"",
    "small": b"small",
    "a block": bytes(range(256)) * (BLOCK // 256),
    "blocks and an end": b"text " * BLOCK,
    "incompressible": random.Random(7).randbytes(3 * BLOCK + 100),
    "hole": bytes(5 * BLOCK),
    "hole with an end": bytes(2 * BLOCK) + b"end",
    "larger than what is read at a time": random.Random(8).randbytes(12 * BLOCK),
    **{f"d/{number:04}{'x' * 40}": b"%d" % number for number in range(1500)},
}
DEVICES = ("null c 666 0 0 1 3", "disk b 660 0 6 8 0", "pipe i 644 0 0 f", "socket i 644 0 0 s")


@pytest.fixture(scope="module", params=["zstd", "gzip"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp(request.param)
    tree = where / "tree"
    (tree / "d").mkdir(parents=True)
    for name, content in CONTENTS.items():
        (tree / name).write_bytes(content)
        os.utime(tree / name, (0, 1_600_000_000 + len(content)))
    (tree / "link").symlink_to("small")
    (tree / "small").chmod(0o4711)
    (tree / "again").hardlink_to(tree / "small")
    os.setxattr(tree / "empty", "user.x", b"1")
    os.setxattr(tree / "d", "user.x", b"1")
    argv = [
        "mksquashfs",
        tree,
        where / "squashfs",
        "-comp",
        request.param,
        "-offset",
        str(OFFSET),
        "-no-progress",
        "-force-uid",
        "7",
    ]
    for device in DEVICES:
        argv += ["-p", device]
    subprocess.run(argv, check=True, capture_output=True)
    return where / "squashfs"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Squashfs]:
    with path.open("rb") as file:
        yield Squashfs(file.fileno(), OFFSET)


def test_every_file_is_read_with_its_attributes(image: Path) -> None:
    with opened(image) as squashfs:
        digest = squashfs.reader()
        found = {digest(file): file for file in squashfs.files()}
        sizes = Counter(file.size for file in squashfs.files())
    assert {digest.hex() for digest in found} == {hashlib.sha256(content).hexdigest() for content in CONTENTS.values()}
    assert sizes == Counter(map(len, CONTENTS.values()))
    assert {file.mtime - file.size for file in found.values()} == {1_600_000_000}
    assert {file.uid for file in found.values()} == {7}
    assert found[hashlib.sha256(b"small").digest()].mode == 0o4711


def test_every_name_is_read(image: Path) -> None:
    with opened(image) as squashfs:
        names = sorted(squashfs.names())
    others = ["d", "link", "again", *(device.split()[0] for device in DEVICES)]
    assert names == sorted(name.rpartition("/")[2].encode() for name in [*CONTENTS, *others])


def test_an_empty_file_system_has_no_fragments_and_no_files(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    options = ["-offset", str(OFFSET), "-no-exports", "-no-progress"]
    argv: list[str | Path] = ["mksquashfs", tmp_path / "tree", tmp_path / "squashfs", *options]
    subprocess.run(argv, check=True, capture_output=True)
    with opened(tmp_path / "squashfs") as squashfs:
        assert [*squashfs.files(), *squashfs.names()] == []


def test_what_is_damaged_raises_nothing_else_than_it_says(image: Path, tmp_path: Path) -> None:
    whole, chance = image.read_bytes(), random.Random(19)
    tables = int.from_bytes(whole[OFFSET + 64 : OFFSET + 72], "little") + OFFSET  # where the inodes begin
    refused = 0
    for number in range(120):
        damaged = bytearray(whole)
        first, last = (OFFSET, OFFSET + 95) if number % 3 == 0 else (tables, len(whole) - 1)
        for _ in range(1 + number % 4):
            damaged[chance.randint(first, last)] = chance.randrange(256)
        path = tmp_path / "damaged"
        path.write_bytes(damaged[: chance.randint(OFFSET, len(whole))] if number % 10 == 0 else damaged)
        try:
            with opened(path) as squashfs:
                digest = squashfs.reader()
                for file in squashfs.files():
                    if file.size < 1 << 20:
                        digest(file)
                Counter(squashfs.names())
        except ERRORS:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize(
    ("start", "field", "problem"),
    [
        (0, b"sqsh", "not a squashfs"),
        (20, b"\x04\0", "not a squashfs"),  # compressed with xz
        (12, b"\0\0\0\x10", "blocks are too large"),
    ],
)
def test_another_kind_of_file_system_is_refused(image: Path, tmp_path: Path, start: int, field: bytes, problem: str) -> None:
    other = bytearray(image.read_bytes())
    other[OFFSET + start : OFFSET + start + len(field)] = field
    (tmp_path / "other").write_bytes(other)
    with pytest.raises(ValueError, match=problem), opened(tmp_path / "other"):
        pass
