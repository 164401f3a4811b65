"""The own squasher against mksquashfs: the same bytes, whatever is in an image, and whatever is copied from an earlier SIF."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import pickle
import random
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from publisher.build import readback
from publisher.build.builder import EarlierSif
from publisher.build.readback import ReadbackError
from publisher.build.sif import DATA_OFFSET
from publisher.build.squash import own_squasher
from publisher.build.squash.find import find_squasher
from publisher.build.squash.own_squasher import MKSQUASHFS, OwnSquasher
from publisher.build.squash.programs import Mksquashfs, Squasher
from publisher.errors import BuildError, LayerError, SpaceError
from publisher.layers.emit import ExtraEntry
from publisher.layers.stream.uncompressed import copy_path
from publisher.sifs.squashfs import Squashfs
from publisher.sifs.squashfs_tree import SquashfsTree
from publisher.squashfs.known_contents import KnownContents
from tests.support.images import raw_tar
from tests.support.images.layers import Entry, directory, file, hardlink, symlink, tar
from tests.support.images.random_stacks import stacks
from tests.support.images.stacks import CAPABILITY, STACKS, attributes
from tests.support.images.tar_stream import squash_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from publisher.sifs.squashfs_tree import TreeEntry

pytestmark = pytest.mark.skipif(
    Mksquashfs().version != MKSQUASHFS, reason="NOT TESTED: this host's mksquashfs makes other bytes than the own squasher"
)
BLOCK = 1 << 17


def noise(size: int, seed: float | str = 0) -> bytes:
    """Return bytes that cannot be compressed."""
    return random.Random(seed).randbytes(size)


def text(size: int, seed: float | str = 0) -> bytes:
    """Return bytes that can be compressed."""
    return noise(size // 2 + 1, seed).hex().encode()[:size]


def squash(layers: Sequence[bytes], where: Path, made_by: Squasher, **more: object) -> Path:
    """Return the squashfs of layers, behind the space for a SIF's header."""
    where.mkdir(parents=True, exist_ok=True)
    out = where / "sif"
    made_by.squash(out, squash_source(layers, where, **more), offset=DATA_OFFSET, deadline=60)  # type: ignore[arg-type]  # its own
    return out


def require_same(layers: Sequence[bytes], where: Path, **more: object) -> None:
    """Compare the bytes of both squashers, and their file indexes."""
    own, theirs = squash(layers, where / "own", find_squasher(), **more), squash(layers, where / "theirs", Mksquashfs(), **more)
    assert own.read_bytes()[DATA_OFFSET:] == theirs.read_bytes()[DATA_OFFSET:]
    assert own.with_name("files.zst").read_bytes() == theirs.with_name("files.zst").read_bytes()


SIZES = [0, 1, 511, 512, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 100, 3 * BLOCK - 1]
TREES: dict[str, list[Entry]] = {
    "nothing": [],
    "sizes, compressible": [file(f"f{size}", text(size, size)) for size in SIZES],
    "sizes, incompressible": [file(f"f{size}", noise(size, size)) for size in SIZES],
    "small files that fill fragment blocks": [file(f"f{n}", text(n * 97 % 70_000, n)) for n in range(60)],
    "zeros": [file(f"z{size}", bytes(size)) for size in SIZES],
    "zeros among others": [
        *(file("a", text(100) + bytes(BLOCK)), file("b", bytes(BLOCK) + text(BLOCK) + bytes(BLOCK)), file("c", text(9))),
        *(file("d", text(BLOCK) + bytes(5000)), file("e", bytes(77)), file("f", bytes(BLOCK) + b"x")),
    ],
    "the same content twice": [file("a", text(BLOCK + 5)), file("b", text(BLOCK + 5)), file("c", b"x"), file("d", b"x")],
    "owners": [file(f"f{n}", b"x", uid=n % 7 * 1000, gid=(n * 31) % 5) for n in range(40)] + [file("m", uid=0xFFFFFFFE)],
    "modes and times": [file(f"f{n}", b"x", mode=n, mtime=n * 4_000_000) for n in (0o4755, 0o2711, 0o1644, 0o600)],
    "links": [
        *(directory("d"), file("d/a", text(300_000)), hardlink("d/b", "d/a"), hardlink("0", "d/a"), symlink("s", "d/a")),
        *(symlink("long", "x" * 3000), hardlink("s2", "s"), Entry("fifo", "p"), hardlink("p2", "p"), file("z", bytes(10))),
        *(hardlink("z2", "z"),),
    ],
    "extended attributes": [
        *(file("a", pax=attributes(security__capability=CAPABILITY)), file("b", pax=attributes(user__x=b"short", user__y=b"z"))),
        *(file("c", pax=attributes(user__x=b"short", user__y=b"z")), directory("d", pax=attributes(user__d=b"of a directory"))),
        *(file("e", b"1" * 200_000, pax=attributes(user__long=b"v" * 129)), file("f", pax=attributes(user__o=b"v" * 129))),
        *(symlink("s", "a", pax=attributes(security__capability=CAPABILITY)), hardlink("s2", "s"), hardlink("a2", "a")),
        *(file("g", pax=attributes(user__1=b"the same", user__2=b"the same", user__3=b"1234567", user__4=b"1234567")),),
        *(
            file("h", pax=attributes(user__1=b"the same", user__3=b"1234567")),
            Entry("fifo", "p", pax=attributes(security__capability=CAPABILITY[::-1])),
        ),
        *(
            file("i", pax=attributes(user__big=b"w" * 5000)),
            file("j", pax=attributes(user__big2=b"w" * 5000, user__x=CAPABILITY)),
        ),
    ],
    "more attributes than a list should have": [
        file(f"f{n}", pax=attributes(**{f"user__{i:03}": bytes([65 + n]) * 127 for i in range(600)})) for n in range(2)
    ],
    "names in the order of bytes": [file(name) for name in ("b", "B", "a.b", "a", "a-", "a/x".replace("/", "0"), "é", "\udcff")],
    "a directory with 256 names": [file(f"d/{n:03}") for n in range(256)],
    "a directory with 257 names": [file(f"d/{n:03}") for n in range(257)],
    "a directory with long names": [file(f"d/{n:04}{'n' * 240}") for n in range(300)],
    "many directories": [file(f"{n % 50}/{n % 7}/{n}", b"%d" % n) for n in range(3000)],
    "a deep directory": [file("/".join(["d"] * 200) + "/f")],
    "an inode far from its neighbours": [
        *(directory("a"), file("a/first"), directory("b"), hardlink("b/0", "a/first")),
        *(symlink(f"c/{n}", "x") for n in range(33_000)),
        *(hardlink("d/0", "a/first"), file("d/1"), hardlink("c/zz", "a/first")),
    ],
}


@pytest.mark.parametrize("name", TREES)
def test_the_bytes_are_those_of_mksquashfs(name: str, tmp_path: Path) -> None:
    require_same([tar(TREES[name])], tmp_path)


@pytest.mark.parametrize("name", STACKS)
def test_the_bytes_of_stacks_are_those_of_mksquashfs(name: str, tmp_path: Path) -> None:
    extras = [
        ExtraEntry(b".new", b"5", 0o755),
        ExtraEntry(b".new/f", b"0", 0o600, b"x"),
        ExtraEntry(b".l", b"2", 0o777, link=b"r"),
    ]
    require_same([tar(layer) for layer in STACKS[name]], tmp_path, extras=extras)


@settings(deadline=None, max_examples=60)
@given(stack=stacks(), dice=st.integers())
def test_the_bytes_of_random_stacks_are_those_of_mksquashfs(
    stack: list[list[Entry]], dice: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sizes = random.Random(dice)
    where, grown = tmp_path_factory.mktemp("random"), [tar(resized(entry, sizes) for entry in layer) for layer in stack]
    try:
        squash_source(grown, where)
    except LayerError:
        reject()
    require_same(grown, where)


def resized(entry: Entry, dice: random.Random) -> Entry:
    """Return an entry whose content has another size, often one at the boundary of a block."""
    if entry.kind != "file" or ".wh." in entry.name:
        return entry
    size = dice.choice([*SIZES, dice.randrange(300_000)])
    content = dice.choice([noise(size, dice.random()), text(size, dice.random()), bytes(size)])
    pax = attributes(user__x=text(dice.randrange(1, 200), dice.random())) if dice.random() < 0.2 else {}
    return Entry("file", entry.name, content, mode=entry.mode, uid=dice.randrange(3), pax=pax)


@pytest.mark.parametrize("level", [1, 3, 15, 19])
def test_each_level_of_the_compression_gives_the_bytes_of_mksquashfs(level: int, tmp_path: Path) -> None:
    layers = [tar([file("a", text(300_000)), file("b", noise(1000))])]
    own, theirs = (
        squash(layers, tmp_path / "own", find_squasher(level=level)),
        squash(layers, tmp_path / "m", Mksquashfs(level=level)),
    )
    assert own.read_bytes() == theirs.read_bytes()


def test_sparse_files_have_their_holes(tmp_path: Path) -> None:
    data = text(200_000)
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": str(3 * BLOCK + 9)}
    sparse_map = b"2\n1000\n150000\n300000\n50000\n".ljust(512, b"\0")
    layer = tar([file("before", b"1"), Entry("file", "x", sparse_map + data, pax=pax), file("after", b"2")])
    require_same([layer, tar([file("other")])], tmp_path)


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_other_formats_give_the_same_bytes(tar_format: int, tmp_path: Path) -> None:
    require_same([tar([file("d/" + "n" * 90, text(1000), uid=5), symlink("l", "t" * 90)], tar_format)], tmp_path)


def test_archives_with_unusual_headers_give_the_same_bytes(tmp_path: Path) -> None:
    """Headers that are written anew for mksquashfs are parsed once more here; the last entry may lack its padding."""
    unusual = raw_tar.file(b"a", mtime=raw_tar.number(5)) + raw_tar.file(b"b")
    require_same([unusual + raw_tar.END, tar([file("c", b"3")])], tmp_path)
    last = tar([file("d", b"1234")])[: 512 + 4]
    require_same([last], tmp_path / "cut")


@pytest.mark.parametrize("compressed", [False, True])
def test_the_bytes_do_not_depend_on_uncompressed_copies(compressed: bool, tmp_path: Path) -> None:
    layers = [tar([file(f"f{n}", text(50_000, n)) for n in range(80)]), tar([file("f7", b"new"), file("last", noise(BLOCK))])]
    copies = tmp_path / "copies"
    copies.mkdir()
    (tmp_path / "own").mkdir()
    if compressed:
        for number, layer in enumerate(layers):
            copy_path(copies, tmp_path / "own" / f"layer-{number}").write_bytes(layer)
    own = squash(layers, tmp_path / "own", find_squasher(), copies=copies)
    assert own.read_bytes() == squash(layers, tmp_path / "theirs", Mksquashfs()).read_bytes()


# --- an earlier SIF

BASE = [
    *(file(f"f{n:03}", text(n * 211 % 60_000, n)) for n in range(200)),
    *(file(f"large/{n}", text(BLOCK * 2 + n * 1000, n)) for n in range(8)),
    *(file("zeros", bytes(999)), file("large/holes", text(BLOCK) + bytes(BLOCK) + b"end"), file("large/whole", noise(2 * BLOCK))),
    *(file("empty", b""), hardlink("h", "f003"), symlink("l", "f003"), file("twice", text(211 * 5, 5))),
]
CHANGES = {
    "nothing": [],
    "a few files": [file("f050", b"new"), file("f120", text(40_000, "new")), file("new", noise(BLOCK + 1))],
    "all times": [Entry(**{**vars(entry), "mtime": 1_650_000_000}) for entry in BASE],
    "names alone": [file("moved", text(2 * BLOCK + 3000, 3)), file("large/.wh.3", b"")],
    "large files": [file("large/2", text(BLOCK * 3, "new")), file("large/5", b"small")],
    "everything": [file(f"f{n:03}", text(n * 211 % 60_000, f"new {n}")) for n in range(200)],
    "files leave": [file(f".wh.f{n:03}", b"") for n in range(0, 200, 3)],
}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> EarlierSif:
    where = tmp_path_factory.mktemp("earlier")
    sif = squash([tar(BASE)], where, Mksquashfs())
    return EarlierSif(sif, where / "files.zst")


class Counting(OwnSquasher):
    """An own squasher that notes how many bytes it has copied."""

    copied = -1

    @contextlib.contextmanager
    def _known(self, earlier: EarlierSif | None):  # type: ignore[no-untyped-def]  # noqa: ANN202 - as in the class
        with super()._known(earlier) as known:
            yield known
            self.copied = -1 if known is None else known.copied


def counting(level: int = 3) -> Counting:
    own = find_squasher()
    assert isinstance(own, OwnSquasher)
    return Counting(own._program, own._zstd, level)


@pytest.mark.parametrize("change", CHANGES)
def test_contents_of_an_earlier_sif_are_copied_and_the_bytes_are_the_same(
    change: str, earlier: EarlierSif, tmp_path: Path
) -> None:
    layers = [tar(BASE), tar(CHANGES[change])]
    squasher = counting()
    made = squash(layers, tmp_path / "own", squasher, earlier=earlier)
    assert made.read_bytes() == squash(layers, tmp_path / "theirs", Mksquashfs()).read_bytes()
    assert squasher.copied > (0.6 * made.stat().st_size if change in {"nothing", "all times", "names alone"} else 0)


def test_layers_whose_contents_are_known_are_not_read(earlier: EarlierSif, tmp_path: Path) -> None:
    layers = [tar(BASE), tar([file("f003", b"new")])]
    theirs = squash(layers, tmp_path / "theirs", Mksquashfs())
    source = squash_source(layers, tmp_path, earlier=earlier)
    (tmp_path / "layer-0").write_bytes(gzip.compress(b""))
    find_squasher().squash(tmp_path / "sif", source, offset=DATA_OFFSET, deadline=60)
    assert (tmp_path / "sif").read_bytes() == theirs.read_bytes()
    readback.check(tmp_path / "sif", source.listed.expected, deadline=60)


def test_a_sif_of_another_level_is_not_copied_from(earlier: EarlierSif, tmp_path: Path) -> None:
    squasher = counting(level=9)
    made = squash([tar(BASE)], tmp_path / "own", squasher, earlier=earlier)
    assert made.read_bytes() == squash([tar(BASE)], tmp_path / "theirs", Mksquashfs(level=9)).read_bytes()
    assert squasher.copied == -1


@pytest.mark.parametrize(
    "damage", ["missing", "no index", "another index", "no squashfs", "cut off", "another order", "other blocks"]
)
def test_an_earlier_sif_that_cannot_be_used_changes_nothing(
    damage: str, earlier: EarlierSif, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sif, index = tmp_path / "earlier.sif", tmp_path / "earlier.zst"
    sif.write_bytes(earlier.sif.read_bytes()), index.write_bytes(earlier.file_index.read_bytes())
    if damage == "missing":
        sif.unlink()
    elif damage == "no index":
        index.write_bytes(b"nothing")
    elif damage == "another index":
        squash([tar(BASE[:-5])], tmp_path / "other", Mksquashfs())
        index = tmp_path / "other" / "files.zst"
    elif damage == "no squashfs":
        sif.write_bytes(b"x" * 1_000_000)
    elif damage == "cut off":
        sif.write_bytes(sif.read_bytes()[:-9000])
    elif damage == "other blocks":
        put_squashfs(sif, tmp_path, "-b", "256K", "-comp", "zstd", "-Xcompression-level", "3")
    else:
        squash([tar([*BASE[90:180], *BASE[:90], *BASE[180:]])], tmp_path / "other", Mksquashfs())
        index = tmp_path / "other" / "files.zst"
    caplog.set_level("DEBUG")
    made = squash([tar(BASE)], tmp_path / "own", find_squasher(), earlier=EarlierSif(sif, index))
    assert made.read_bytes() == squash([tar(BASE)], tmp_path / "theirs", Mksquashfs()).read_bytes()
    assert "nothing is copied from" in caplog.text


def put_squashfs(sif: Path, where: Path, *options: str) -> None:
    """Put a squashfs of the same files, made with other options, in the place of that of a SIF."""
    (where / "layer.tar").write_bytes(tar(BASE))
    argv = ["mksquashfs", "-", str(sif), "-tar", "-noappend", "-offset", str(DATA_OFFSET), "-no-duplicates", *options]
    with (where / "layer.tar").open("rb") as stream:
        subprocess.run(argv, stdin=stream, check=True, capture_output=True)


def test_a_sif_with_gzip_is_not_copied_from(earlier: EarlierSif, tmp_path: Path) -> None:
    sif, squasher = tmp_path / "earlier.sif", counting()
    put_squashfs(sif, tmp_path, "-comp", "gzip")
    made = squash([tar(BASE)], tmp_path / "own", squasher, earlier=EarlierSif(sif, earlier.file_index))
    assert made.read_bytes() == squash([tar(BASE)], tmp_path / "theirs", Mksquashfs()).read_bytes()
    assert squasher.copied == -1


def test_damage_that_is_met_while_copying_lets_the_sif_be_made_again(earlier: EarlierSif, tmp_path: Path) -> None:
    """Where the earlier SIF is cut off meanwhile, the builder begins again without it; what is damaged otherwise is read back."""
    sif = tmp_path / "earlier.sif"
    sif.write_bytes(earlier.sif.read_bytes())

    class Cutting(Counting):
        @contextlib.contextmanager
        def _known(self, earlier: EarlierSif | None):  # type: ignore[no-untyped-def]  # noqa: ANN202 - as in the class
            with super()._known(earlier) as known:
                os.truncate(sif, DATA_OFFSET + 5000)
                yield known

    own = counting()
    with pytest.raises(ReadbackError, match="the earlier SIF cannot be copied from: the file to copy from is too short"):
        squash([tar(BASE)], tmp_path / "own", Cutting(own._program, own._zstd, 3), earlier=EarlierSif(sif, earlier.file_index))


def test_a_damaged_block_is_found_when_the_sif_is_read_back(
    earlier: EarlierSif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KnownContents, "check_compression", lambda *_: None)  # which looks at a sample of the blocks only
    content = bytearray(earlier.sif.read_bytes())
    middle = DATA_OFFSET + (len(content) - DATA_OFFSET) // 2
    content[middle : middle + 64] = bytes(64)
    (tmp_path / "earlier.sif").write_bytes(content)
    source = squash_source([tar(BASE)], tmp_path, earlier=EarlierSif(tmp_path / "earlier.sif", earlier.file_index))
    find_squasher().squash(tmp_path / "sif", source, offset=DATA_OFFSET, deadline=60)
    with pytest.raises(ReadbackError):
        readback.check(tmp_path / "sif", source.listed.expected, deadline=60)


@settings(deadline=None, max_examples=60)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    at_end=st.booleans(),
    checked=st.booleans(),
)
def test_random_damage_of_an_earlier_sif_is_noticed_or_does_not_matter(
    changes: list[tuple[float, bytes]],
    at_end: bool,
    checked: bool,
    earlier: EarlierSif,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """In its tables (``at_end``) or anywhere; also where the sample of its blocks does not show it."""
    where = tmp_path_factory.mktemp("damaged")
    content = bytearray(earlier.sif.read_bytes())
    first = len(content) - 8192 if at_end else DATA_OFFSET
    for place, data in changes:
        position = first + int(place * (len(content) - first - len(data)))
        content[position : position + len(data)] = data
    (where / "earlier.sif").write_bytes(content)
    source = squash_source([tar(BASE), tar([file("new")])], where, earlier=EarlierSif(where / "earlier.sif", earlier.file_index))
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ReadbackError):
        if not checked:
            patch.setattr(KnownContents, "check_compression", lambda *_: None)
        find_squasher().squash(where / "sif", source, offset=DATA_OFFSET, deadline=60)
        readback.check(where / "sif", source.listed.expected, deadline=60)
        expected = squash_source([tar(BASE), tar([file("new")])], where)
        find_squasher().squash(where / "expected", expected, offset=DATA_OFFSET, deadline=60)
        assert tree(where / "sif") == tree(where / "expected")


def tree(sif: Path) -> list[TreeEntry]:
    """Return what is in a SIF, without the places of contents."""
    with sif.open("rb") as opened:
        entries = SquashfsTree(Squashfs(opened.fileno(), DATA_OFFSET)).entries()
        return [entry._replace(file=None) for entry in entries]


# --- limits and failures


def test_an_image_with_very_many_entries_is_squashed_by_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_squasher, "_MAX_ENTRIES", 2)
    calls: list[str] = []
    program = Mksquashfs()
    monkeypatch.setattr(program, "squash", lambda *_, **__: calls.append("program"))
    own = counting()
    for count in (2, 3):
        source = squash_source([tar([file(f"f{n}") for n in range(count)])], tmp_path)
        OwnSquasher(program, own._zstd, 3).squash(tmp_path / f"{count}", source, offset=0, deadline=60)
    assert calls == ["program"]


TEXTS: dict[str, tuple[list[Entry], set[str]]] = {
    "alike attributes": ([file(f"f{n}", pax=attributes(user__x=b"v" * 1000)) for n in range(9)], set()),
    "different attributes": ([file(f"g{n}", pax=attributes(user__x=b"%d" % n * 1000)) for n in range(4)], {"mksquashfs"}),
    "names": ([file(f"{'d' * 200}/{n:0200}") for n in range(12)], set()),
    "more names": ([file(f"{'d' * 200}/{n:0200}") for n in range(20)], {"mksquashfs"}),
    "targets": ([symlink(f"{n}", "t" * 1000) for n in range(4)], {"mksquashfs"}),
}


@pytest.mark.parametrize("name", TEXTS)
def test_an_image_with_very_much_text_is_squashed_by_the_program(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names without their directories, targets, and attributes that differ."""
    monkeypatch.setattr(own_squasher, "_MAX_TEXT", 3000)
    entries, programs = TEXTS[name]
    source = squash_source([tar(entries)], tmp_path)
    made_by = find_squasher().squash(tmp_path / "sif", source, offset=DATA_OFFSET, deadline=60)
    assert made_by.keys() - {"zstd"} == programs
    assert (tmp_path / "sif").read_bytes() == squash([tar(entries)], tmp_path / "theirs", Mksquashfs()).read_bytes()
    readback.check(tmp_path / "sif", source.listed.expected, deadline=60)


def test_squashing_ends_at_its_deadline(tmp_path: Path) -> None:
    own, times = counting(), iter([0.0, 1.0, 61.0])
    squasher = OwnSquasher(own._program, own._zstd, 3, clock=lambda: next(times, 61.0))
    with pytest.raises(BuildError, match="squashing did not end within 60 s"):
        squash([tar([file("a", noise(5 << 20))])], tmp_path / "own", squasher)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(SpaceError, match="no space left for the SIF"):
        squash([tar([file("a", noise(BLOCK))])], tmp_path / "own", find_squasher())


def test_another_failure_of_the_disk_is_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwritev", broken)
    with pytest.raises(OSError, match="Input/output error"):
        squash([tar([file("a", noise(BLOCK))])], tmp_path / "own", find_squasher())


def test_writes_that_take_only_a_part_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [tar([file("a", noise(3 * BLOCK)), file("b", text(1000))])]
    real, theirs = os.pwrite, squash(layers, tmp_path / "theirs", Mksquashfs())

    def some(descriptor: int, parts: Iterable[bytes], offset: int) -> int:
        return real(descriptor, b"".join(parts)[:1000], offset)

    monkeypatch.setattr(os, "pwritev", some)
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, bytes(data[:50_000]), offset))
    assert squash(layers, tmp_path / "own", find_squasher()).read_bytes() == theirs.read_bytes()


def test_a_squasher_can_be_sent_to_another_process(tmp_path: Path) -> None:
    layers = [tar([file("a", text(1000))])]
    again = pickle.loads(pickle.dumps(find_squasher()))  # noqa: S301 - of this test
    one, other = squash(layers, tmp_path / "1", again), squash(layers, tmp_path / "2", find_squasher())
    assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
