"""Trees of the real mksquashfs, compared path by path with what they were made from; and damaged ones."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from publisher.sifs.squashfs import ERRORS, Squashfs
from publisher.sifs.squashfs_tree import SquashfsTree, TreeEntry
from tests.support.images.layers import Entry, Node, directory, file, hardlink, symlink, tar, tree_of_stream, tree_on_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 128 << 10
KINDS = {b"0": stat.S_IFREG, b"1": stat.S_IFREG, b"2": stat.S_IFLNK, b"5": stat.S_IFDIR, b"6": stat.S_IFIFO}
DATA = random.Random(7).randbytes(3 * BLOCK + 100)
CONTENTS = {
    "empty": b"",
    "small": b"small",
    "a block": DATA[:BLOCK],
    "less than a block": DATA[: BLOCK - 1],
    "blocks": DATA[: 3 * BLOCK],
    "blocks and an end": DATA,
    "text": b"text " * BLOCK,
    "a hole": bytes(5 * BLOCK),
    "a hole and an end": bytes(2 * BLOCK) + b"end",
    "a hole between": DATA[:BLOCK] + bytes(BLOCK) + DATA[:BLOCK] + bytes(7),
}
NAMES = ("caf\udce9", "a\nb\t", "#\\ *", "-rf", "é" * 127 + "x", " ", "many/odd \udc80/\udcfe\udcff")
LINKS = {"m again": "m", "a link": "b/first", "b/c/third": "b/first"}
ENTRIES = [
    *(file(name, content, mtime=1_500_000_000 + len(content)) for name, content in CONTENTS.items()),
    *(file("set-user-id", mode=0o4711, uid=70_000, gid=3_000_000_000), file("none", mode=0, uid=1, gid=2, mtime=0)),
    *(directory("sticky", 0o1777, uid=65_535, gid=65_536), directory("sticky/empty", 0o2750, mtime=(1 << 32) - 1)),
    *map(directory, ("b", "b/c", "few", "many", "many/odd \udc80")),
    *(file(name, b"%d" % number) for number, name in enumerate(("m", "b/first", *NAMES))),
    *(hardlink(name, first) for name, first in LINKS.items()),
    *(symlink("link", "small"), symlink("long link", "t" * 3000 + "/.."), symlink("b/odd link", "\udcff\n", uid=9, gid=9)),
    *(Entry("fifo", "pipe", mode=0o620, uid=5, gid=70_000), Entry("fifo", "b/pipe", mtime=5)),
    *(file(f"many/{number:04}{'x' * (60 + number % 90)}", b"%d" % number) for number in range(1200)),
    *(Entry("fifo", f"few/{number:03}") for number in range(257)),
    *(directory("/".join(["deep" * 5] * depth), 0o700 + depth % 8) for depth in range(1, 101)),
]
SMALL = [
    *(directory("outer"), directory("outer/inner"), file("outer/o", b"1"), hardlink("z", "outer/o"), symlink("link", "to")),
    file("oo"),
    *(*ENTRIES[: len(CONTENTS)], *(file(f"outer/inner/{number}{'x' * 40}") for number in range(300))),
]
VARIANTS = {
    "zstd": ["-comp", "zstd"],
    "gzip": ["-comp", "gzip"],
    "all ends in fragments": ["-comp", "zstd", "-always-use-fragments"],
    "no fragments": ["-comp", "gzip", "-no-fragments"],
    "small blocks": ["-comp", "zstd", "-b", "4096", "-no-exports"],
    "nothing compressed": ["-comp", "gzip", "-noI", "-noD", "-noF", "-always-use-fragments"],
}


def squash(source: Path | bytes, out: Path, *options: str) -> Path:
    """Make a squashfs of a directory, or of a tar stream."""
    stream, sources = (source, ["-", "-tar"]) if isinstance(source, bytes) else (b"", [source])
    argv = ["mksquashfs", sources[0], out, *sources[1:], *options, "-no-progress", "-no-duplicates"]
    subprocess.run(argv, input=stream, check=True, capture_output=True)
    return out


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Squashfs]:
    with path.open("rb") as opened_file:
        yield Squashfs(opened_file.fileno(), 0)


def entries(path: Path) -> list[TreeEntry]:
    with opened(path) as squashfs:
        return list(SquashfsTree(squashfs).entries())


def tree(path: Path) -> dict[bytes, Node]:
    """Return the tree as tests.support describes one, once it is sure that parents and first names come first."""
    found: dict[bytes, Node] = {}
    names: dict[bytes, list[bytes]] = {}
    with opened(path) as squashfs:
        content = squashfs.contents(2)
        for entry in SquashfsTree(squashfs).entries():
            name = entry.path or b"."
            assert name not in found
            assert not entry.path or found[os.path.dirname(entry.path) or b"."].kind == stat.S_IFDIR  # noqa: PTH120 - bytes
            assert (entry.file is not None) == (entry.kind == b"0")
            names[name] = names[entry.link] if entry.kind == b"1" else []
            names[name].append(name)
            data = b"".join(content(entry.file)) if entry.file else entry.link
            data = found[entry.link].content if entry.kind == b"1" else data
            found[name] = Node(KINDS[entry.kind], entry.mode, entry.uid, entry.gid, entry.mtime, data)
    return {name: node._replace(names=tuple(sorted(names[name]))) for name, node in found.items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_path_of_a_tar_stream_is_found_with_its_attributes_and_content(variant: str, tmp_path: Path) -> None:
    stream = tar(ENTRIES, tarfile.GNU_FORMAT)
    made = squash(stream, tmp_path / "squashfs", *VARIANTS[variant])
    found, expected = tree(made), tree_of_stream(stream)
    del found[b"."]
    assert found.keys() == expected.keys()
    assert {path: (node, expected[path]) for path, node in found.items() if node != expected[path]} == {}
    with opened(made) as squashfs:
        assert not squashfs.has_xattrs
        assert len(squashfs.directory_table().content) > 1 << 16


def test_inodes_with_extended_attributes_are_read_like_others(tmp_path: Path) -> None:
    pax = {"SCHILY.xattr.user.x": "1" * 40}
    plain = [entry for entry in ENTRIES if entry.name.isascii() and entry.name.isprintable()]
    made_with = [Entry(**{**vars(entry), "pax": pax}) if entry.kind != "hardlink" else entry for entry in plain]
    stream = tar(made_with)
    made = squash(stream, tmp_path / "squashfs")
    found = tree(made)
    del found[b"."]
    assert found == tree_of_stream(stream)
    with opened(made) as squashfs:
        assert squashfs.has_xattrs


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_every_path_of_a_directory_is_found(compression: str, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "d" / "e").mkdir(parents=True)
    for number, (name, content) in enumerate(CONTENTS.items()):
        (root / "d" / name).write_bytes(content)
        (root / "d" / name).chmod(0o600 + number)
        os.utime(root / "d" / name, (0, number << 28))
    (root / "again").hardlink_to(root / "d" / "text")
    (root / "d" / "e" / "again").hardlink_to(root / "d" / "text")
    (root / "link").symlink_to("d/small")
    os.mkfifo(root / "pipe")
    root.chmod(0o2751)
    os.utime(root, (0, 77))
    expected = tree_on_disk(root)
    assert tree(squash(root, tmp_path / "squashfs", "-comp", compression)) == expected


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_the_root_has_its_own_attributes(names: list[str], tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name in names:
        (tmp_path / "tree" / name).mkdir()
    options = ["-root-mode", "1705", "-root-uid", "70000", "-root-gid", "8", "-root-time", "9", "-no-exports"]
    root, *others = entries(squash(tmp_path / "tree", tmp_path / "squashfs", *options))
    assert root == TreeEntry(b"", b"5", 0o1705, 70_000, 8, 9)
    assert sorted(entry.path.decode() for entry in others) == names


def test_only_files_are_linked_to_their_first_names(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    first = tmp_path / "tree" / "file 1"
    first.write_bytes(b"1")
    os.mkfifo(tmp_path / "tree" / "pipe 1")
    (tmp_path / "tree" / "link 1").symlink_to("target")
    for name in ("file", "pipe", "link"):
        os.link(tmp_path / "tree" / f"{name} 1", tmp_path / "tree" / f"{name} 2", follow_symlinks=False)
    found = entries(squash(tmp_path / "tree", tmp_path / "squashfs"))
    links = [(entry.path, entry.kind, entry.link) for entry in found[1:]]
    files = [(b"file 1", b"0", b""), (b"file 2", b"1", b"file 1")]
    assert links == [*files, *((b"link %d" % n, b"2", b"target") for n in (1, 2)), *((b"pipe %d" % n, b"6", b"") for n in (1, 2))]


@pytest.mark.parametrize("device", ["null c 666 0 0 1 3", "disk b 660 0 6 8 0", "socket i 644 0 0 s"])
def test_a_device_or_socket_is_refused(device: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with pytest.raises(ValueError, match="it has an inode of kind"):
        entries(squash(tmp_path / "tree", tmp_path / "squashfs", "-p", device))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small squashfs whose tables are not compressed: every field can be found and changed."""
    return squash(tar(SMALL), tmp_path_factory.mktemp("sound") / "squashfs", "-noI")


def walk(path: Path, limit: int = 5000) -> int:
    """Read names and contents, but no more than a sound tree has by far; return the number of names."""
    with opened(path) as squashfs:
        content, count = squashfs.contents(2), 0
        for entry in itertools.islice(SquashfsTree(squashfs).entries(), limit):
            count += 1
            if entry.file is not None and entry.file.size < 1 << 22:
                for part in content(entry.file):
                    assert len(part) <= squashfs.block_size
    assert count < limit, "the tree has no end"
    return count


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.parametrize("option", ["-noI", "-no-exports"])
def test_what_is_damaged_raises_nothing_else_than_it_says(compression: str, option: str, tmp_path: Path) -> None:
    whole = squash(tar(SMALL), tmp_path / "squashfs", "-comp", compression, option).read_bytes()
    chance = random.Random(23)
    tables = int.from_bytes(whole[64:72], "little")
    refused = 0
    for number in range(300):
        damaged = bytearray(whole)
        for _ in range(1 + number % 3):
            first, last = (0, 95) if number % 4 == 0 else (tables, len(whole) - 1)
            damaged[chance.randint(first, last)] = chance.randrange(256)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            walk(tmp_path / "damaged")
        except ERRORS:
            refused += 1
    assert 50 < refused < 300


def test_what_is_cut_off_is_refused_wherever_it_ends(sound: Path, tmp_path: Path) -> None:
    whole = sound.read_bytes()
    used = int.from_bytes(whole[40:48], "little")
    (tmp_path / "cut").write_bytes(whole[:used])
    assert walk(tmp_path / "cut") == walk(sound)
    for size in [*range(0, used, 3001), *range(used - 40, used)]:
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(ERRORS):
            walk(tmp_path / "cut")


@pytest.mark.parametrize("name", [b"..", b".", b"o/", b"/o", b"o\0"])
def test_a_name_that_no_path_can_have_is_refused(sound: Path, tmp_path: Path, name: bytes) -> None:
    whole, length = sound.read_bytes(), len(name[1:]).to_bytes(2, "little")
    before = length + b"oo"[: len(name)]
    assert whole.count(b"\2\0" + before) == 1
    (tmp_path / "other").write_bytes(whole.replace(b"\2\0" + before, b"\2\0" + length + name))
    with pytest.raises(ValueError, match=re.escape(f"it has a file with the name {name!r}")):
        walk(tmp_path / "other")


def inode_of(whole: bytearray, name: bytes) -> slice:
    """Return where the offset of a name's inode is, in a squashfs whose directories are not compressed."""
    place = whole.index(len(name[1:]).to_bytes(2, "little") + name) - 6
    return slice(place, place + 2)


def test_a_file_is_no_root(sound: Path, tmp_path: Path) -> None:
    whole = bytearray(sound.read_bytes())
    whole[32:34] = whole[inode_of(whole, b"small")]
    (tmp_path / "other").write_bytes(whole)
    with pytest.raises(ValueError, match="its root is not a directory"):
        walk(tmp_path / "other")


def test_a_directory_that_contains_itself_is_refused(sound: Path, tmp_path: Path) -> None:
    whole = bytearray(sound.read_bytes())
    whole[inode_of(whole, b"inner")] = whole[inode_of(whole, b"outer")]
    (tmp_path / "other").write_bytes(whole)
    with pytest.raises(ERRORS):
        walk(tmp_path / "other")


def test_a_block_that_claims_to_be_immense_is_refused(tmp_path: Path) -> None:
    whole = bytearray(squash(tar(SMALL), tmp_path / "squashfs", "-comp", "zstd").read_bytes())
    frame = int.from_bytes(whole[64:72], "little") + 2  # the first of the table of inodes
    assert whole[frame : frame + 4] == b"\x28\xb5\x2f\xfd"
    whole[frame + 4 : frame + 13] = b"\xe0" + (1 << 60).to_bytes(8, "little")  # the size of its content
    (tmp_path / "other").write_bytes(whole)
    with pytest.raises(ERRORS):
        walk(tmp_path / "other")
