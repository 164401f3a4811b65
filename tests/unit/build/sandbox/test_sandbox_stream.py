"""Sandboxes as tar streams: GNU tar unpacks from them what unsquashfs unpacks from the SIF."""

from __future__ import annotations

import io
import os
import random
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from publisher.build.sandbox.sandbox_stream import open_squashfs, write_sandbox
from publisher.build.sif import DATA_OFFSET, write_sif_header
from publisher.errors import RepositoryError
from publisher.state.paths import CATALOG_MARK
from publisher.system.tar_stream import TarStream
from tests.support.images.layers import Entry, Node, directory, file, hardlink, symlink, tar, tree_of_stream, tree_on_disk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BLOCK = 128 << 10
MARK = CATALOG_MARK.encode()
LARGEST = 1 << 30
DATA = random.Random(3).randbytes(9 * BLOCK + 5)
BITS = 0o7777 if os.geteuid() == 0 else 0o1777  # of the mode that both programs set: only root gets set-user-ID files
LONG = "/".join(["long" * 12] * 5)
ENTRIES = [
    *(file("empty", b""), file("small"), file("block", DATA[:BLOCK]), file("blocks", DATA), file("text", b"text " * BLOCK)),
    *(file("hole", bytes(3 * BLOCK)), file("end", bytes(2 * BLOCK) + b"end", mtime=1), file("newest", mtime=1_640_000_000)),
    *(file("set-user-id", mode=0o4711, uid=7, gid=8), directory("sticky", 0o1777, uid=65_535, gid=65_536)),
    *(file("high", uid=1 << 21, gid=(1 << 32) - 2), symlink("high link", "to", uid=70_000, gid=70_000)),
    *(directory("d", 0o500), file("d/closed", mode=0o400), directory("d/e", 0o700, mtime=1), directory("d/z", mtime=2)),
    *(file("b/first", DATA[:9000]), hardlink("again", "b/first"), hardlink("d/e/again", "b/first")),
    *(file("linked", b""), hardlink("z", "linked")),
    *(symlink("link", "/no/where"), symlink("up", "../../etc/shadow"), symlink("long link", "t" * 300), Entry("fifo", "pipe")),
    *(directory("b"), file("caf\udce9\udcff"), file("new\nline"), file("-rf"), file("#\\ *"), file("é" * 127 + "x")),
    *(directory(LONG[: 49 * depth - 1]) for depth in range(1, 6)),
    *(file(f"{LONG}/{'x' * count}", b"%d" % count) for count in (1, 99, 200)),
    *(hardlink("from below", f"{LONG}/{'x' * 200}"), hardlink(f"{LONG}/{'y' * 150}", "small")),
    *(directory("many"), *(file(f"many/{number}", DATA[number : 99 * number]) for number in range(600))),
]


def sif_of(entries: Sequence[Entry], where: Path, *options: str) -> Path:
    """Return a SIF whose squashfs mksquashfs has made."""
    fixed = ["-tar", "-offset", str(DATA_OFFSET), "-no-progress", "-no-duplicates"]
    stream, env = tar(entries, tarfile.GNU_FORMAT), {**os.environ, "SOURCE_DATE_EPOCH": "1650000000"}
    argv = ["mksquashfs", "-", str(where / "sif"), *fixed, *options]
    subprocess.run(argv, input=stream, check=True, capture_output=True, env=env)
    write_sif_header(where / "sif", architecture="amd64", identity=bytes(16), epoch=0)
    return where / "sif"


def streamed(sif: Path, root: bytes, largest: int = LARGEST) -> tuple[bytes, list[bytes]]:
    """Return the stream of a SIF's sandbox, and the paths that are not in it."""
    out = bytearray()
    stream = TarStream(out.extend)
    with open_squashfs(sif) as squashfs:
        left_out = write_sandbox(squashfs, root, stream, largest=largest)
    stream.end()
    return bytes(out), left_out


def streamed_tree(sif: Path, largest: int) -> tuple[dict[bytes, Node], list[bytes]]:
    """Return the tree of the stream of a SIF's sandbox, without its root and mark, and the paths that are not in it."""
    stream, left_out = streamed(sif, b"s", largest)
    found = tree_of_stream(stream)
    del found[b"s"], found[b"s/" + MARK]
    names = {path: tuple(name.removeprefix(b"s/") for name in node.names) for path, node in found.items()}
    return {path.removeprefix(b"s/"): node._replace(names=names[path]) for path, node in found.items()}, left_out


@pytest.mark.parametrize("options", [["-comp", "zstd", "-no-fragments"], ["-comp", "gzip", "-root-mode", "2750"]])
def test_a_stream_has_what_unsquashfs_unpacks(options: list[str], tmp_path: Path) -> None:
    sif = sif_of(ENTRIES, tmp_path, *options)
    stream, left_out = streamed(sif, b"caf\xe9:1@0")
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xp", "-C", tmp_path / "unpacked"], input=stream, check=True, capture_output=True)
    argv = ["unsquashfs", "-dest", str(tmp_path / "unsquashed"), "-offset", str(DATA_OFFSET), "-no-progress", str(sif)]
    subprocess.run(argv, check=True, capture_output=True, umask=0)
    expected = tree_on_disk(tmp_path / "unsquashed")
    top = expected[b"."]
    expected[MARK] = Node(stat.S_IFREG, 0o644, top.uid, top.gid, top.mtime, b"", (), (MARK,))
    found = tree_on_disk(tmp_path / "unpacked" / "caf\udce9:1@0")
    assert found.keys() == expected.keys()
    pairs = [[node._replace(mode=node.mode & BITS) for node in (found[path], expected[path])] for path in found]
    assert [pair for pair in pairs if pair[0] != pair[1]] == []
    assert (len(expected), left_out) == (len(ENTRIES) + 2, [])


def test_the_stream_has_owners_that_only_root_can_give_away(tmp_path: Path) -> None:
    found, _ = streamed_tree(sif_of(ENTRIES, tmp_path), LARGEST)
    assert found == tree_of_stream(tar(ENTRIES))


def test_the_mark_of_a_catalog_is_like_the_root(tmp_path: Path) -> None:
    sif = sif_of([file("a")], tmp_path, "-root-mode", "700")
    stream, _ = streamed(sif, b"name")
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        root, mark, other = archive
    assert (root.name, root.type, root.mode, root.mtime) == ("name", tarfile.DIRTYPE, 0o700, 1_650_000_000)
    assert (mark.name, mark.type, mark.mode, mark.size) == (f"name/{CATALOG_MARK}", tarfile.REGTYPE, 0o644, 0)
    assert (mark.uid, mark.gid, mark.mtime) == (root.uid, root.gid, root.mtime)
    assert other.name == "name/a"


def test_large_files_are_left_out_if_they_have_one_name(tmp_path: Path) -> None:
    entries = [
        *(file("a", b"1" * 4096), file("b", b"2" * 4097), file("d/large", bytes(1 << 20)), directory("d")),
        *(hardlink("c", "b"), hardlink("d/again", "b"), hardlink("z", "a"), symlink("link", "b"), symlink("long", "x" * 4500)),
    ]
    found, left_out = streamed_tree(sif_of(entries, tmp_path), 4096)
    assert left_out == [b"d/large"]
    assert found == {path: node for path, node in tree_of_stream(tar(entries)).items() if path not in left_out}


@pytest.mark.parametrize("names", [("a\nb", "z"), ("a", "z\nb")])
def test_a_file_that_unsquashfs_cannot_be_asked_for_is_never_left_out(names: tuple[str, str], tmp_path: Path) -> None:
    entries = [file(names[0], b"1" * 5000), hardlink(names[1], names[0]), file("c\nd", b"3" * 5000), file("b", b"2" * 5000)]
    found, left_out = streamed_tree(sif_of(entries, tmp_path), 4096)
    assert b"b" in left_out
    assert all(b"\n" not in path for path in left_out)
    assert {path: node.content for path, node in found.items()} == {
        path: node.content for path, node in tree_of_stream(tar(entries)).items() if path not in left_out
    }


PLACES = {"a SIF's header": 32, "a squashfs": DATA_OFFSET, "a squashfs's version": DATA_OFFSET + 28}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_what_is_no_sif_is_refused(place: int, tmp_path: Path) -> None:
    sif = sif_of(ENTRIES[:5], tmp_path)
    damaged = bytearray(sif.read_bytes())
    damaged[place] ^= 0xFF
    sif.write_bytes(damaged)
    with pytest.raises(RepositoryError, match="from its SIF: "):
        streamed(sif, b"s")


@pytest.mark.parametrize("size", [0, DATA_OFFSET, DATA_OFFSET + 96, -4096])
def test_a_sif_that_is_cut_off_is_refused(size: int, tmp_path: Path) -> None:
    sif = sif_of(ENTRIES, tmp_path)
    os.truncate(sif, size if size >= 0 else sif.stat().st_size + size)
    with pytest.raises(RepositoryError, match="from its SIF: "):
        streamed(sif, b"s")


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_damaged_content_and_tables_are_refused(compression: str, tmp_path: Path) -> None:
    sif = sif_of(ENTRIES[:7], tmp_path, "-comp", compression)
    whole = sif.read_bytes()
    inodes, directories = (int.from_bytes(whole[DATA_OFFSET + place :][:8], "little") for place in (64, 72))
    text = whole.index(DATA[-5:])  # the only content that is stored as it is ends here: compressed text follows
    for place in (text + 200, DATA_OFFSET + inodes, DATA_OFFSET + inodes + 20, DATA_OFFSET + directories + 20):
        damaged = bytearray(whole)
        damaged[place : place + 16] = b"\xff" * 16
        sif.write_bytes(damaged)
        with pytest.raises(RepositoryError, match="the sandbox cannot be read from its SIF: "):
            streamed(sif, b"s")


def test_a_device_is_refused(tmp_path: Path) -> None:
    sif = sif_of([file("a"), Entry("char", "null")], tmp_path)
    with pytest.raises(RepositoryError, match="it has an inode of kind 5"):
        streamed(sif, b"s")


def test_a_stream_that_cannot_be_written_is_no_fault_of_the_sif(tmp_path: Path) -> None:
    def write(_: bytes | memoryview) -> None:
        raise BrokenPipeError

    with open_squashfs(sif_of(ENTRIES, tmp_path)) as squashfs, pytest.raises(BrokenPipeError):
        write_sandbox(squashfs, b"s", TarStream(write), largest=LARGEST)
