"""Sandboxes made from layers without a SIF: the same trees as from a SIF, and the same checks."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from publisher.build.sandbox.unpack import NO_SHIELD, extract_paths, unpack
from publisher.build.sandbox.verify_tree import differences
from publisher.errors import BuildError, SpaceError, TestRunError
from publisher.fileindex.format import read_file_index
from publisher.state.paths import CATALOG_MARK
from tests.support.images.built_layers import request
from tests.support.images.layers import Entry, directory, file, hardlink, symlink, tar, tree_on_disk
from tests.support.images.runnable import runnable
from tests.support.machine import child_process
from tests.support.publisher.local_builder import build

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from publisher.state.built import BuiltImage, SandboxSource

pytestmark = pytest.mark.system

CAPABILITY = "\x01\x00\x00\x02\x00\x20\x00\x00" + "\x00" * 12
XATTRS = {"SCHILY.xattr.user.a": "1\n2", "SCHILY.xattr.security.capability": CAPABILITY}
LOWER = [
    *(directory("./", 0o555), directory("closed", 0o500), file("closed/below/file", b"1", mode=0o400), file("old")),
    *(file("set-user-id", mode=0o4755), directory("sticky", 0o1777), Entry("fifo", "pipe"), symlink("up", "../../../etc/shadow")),
    *(file("etc/a", b"12", uid=7, gid=8), hardlink("etc/b", "etc/a"), file("caf\udce9\n"), symlink("dangling", "/no/where")),
    *(
        file("sparse", bytes(300_000) + b"end"),
        directory("opt/lib"),
        symlink("alias", "opt/lib"),
        file("long/" * 30 + "n" * 200, b"far", mtime=7),
    ),
]
UPPER = [
    *(
        file(".wh.old", b""),
        file("alias/moved", os.urandom(200_000)),
        hardlink("same", "alias/moved"),
        file("-rf"),
        file("#hash"),
    ),
    *(file("capable", b"c", mode=0o755, pax=XATTRS), directory("with", pax={"SCHILY.xattr.user.a": "1"}), file("with/x")),
]


def layered(layers: Sequence[bytes], where: Path) -> BuiltImage:
    return build(dataclasses.replace(request(layers, where / "layers"), sif=False), where)


def source(built: BuiltImage) -> SandboxSource:
    assert built.source is not None
    return built.source


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltImage, BuiltImage]:
    """The same image built with a SIF and without."""
    where = tmp_path_factory.mktemp("both")
    layers = [tar([*runnable(), *LOWER]), tar([]), tar(UPPER)]
    return build(request(layers, where / "layers"), where), layered(layers, where)


def test_no_sif_is_made_and_the_file_index_is_the_same(both: tuple[BuiltImage, BuiltImage]) -> None:
    squashed, built = both
    assert not built.sif.exists()
    assert [path.name for path in built.file_index.parent.iterdir()] == [built.file_index.name]
    assert built.file_index.read_bytes() == squashed.file_index.read_bytes()
    assert (built.files, built.unpacked_size, built.notes) == (squashed.files, squashed.unpacked_size, squashed.notes)
    assert "mksquashfs" not in built.tools


def test_the_tree_is_the_one_that_a_sif_unpacks_to(both: tuple[BuiltImage, BuiltImage], tmp_path: Path) -> None:
    squashed, built = both
    unpack(squashed.sif, tmp_path / "squashed", deadline=60)
    source(built).unpack(tmp_path / "layered", deadline=60, shield=NO_SHIELD)
    assert tree_on_disk(tmp_path / "layered") == tree_on_disk(tmp_path / "squashed")
    assert source(built).check(tmp_path / "layered") == ("ran", "")


@pytest.mark.parametrize("seed", range(5))
def test_a_part_of_the_tree_is_what_a_sif_gives(both: tuple[BuiltImage, BuiltImage], tmp_path: Path, seed: int) -> None:
    """Also links without their targets, and files without their directories."""
    squashed, built = both
    with built.file_index.open("rb") as lines:
        kinds = {line.path: line.kind for line in read_file_index(lines) if line.kind != "d" and line.path[:1] != b"#"}
    wanted = [path for path in random.Random(seed).sample(sorted(kinds), 12) if b"\n" not in path]
    extract_paths(squashed.sif, tmp_path / "squashed", wanted, deadline=60)
    source(built).extract_paths(tmp_path / "layered", wanted, deadline=60, shield=NO_SHIELD)
    trees = [tree_on_disk(tmp_path / name) for name in ("layered", "squashed")]
    assert {path: trees[0][path] for path in wanted} == {path: trees[1][path] for path in wanted}
    assert {path for path, node in trees[0].items() if node.kind != stat.S_IFDIR} == set(wanted)
    with built.file_index.open("rb") as lines:
        assert list(differences(read_file_index(lines), str(tmp_path / "layered"), frozenset(wanted))) == []


def test_the_root_alone_is_what_a_sif_gives(both: tuple[BuiltImage, BuiltImage], tmp_path: Path) -> None:
    squashed, built = both
    extract_paths(squashed.sif, tmp_path / "squashed", (), deadline=60)
    source(built).extract_paths(tmp_path / "layered", (), deadline=60, shield=NO_SHIELD)
    assert tree_on_disk(tmp_path / "layered") == tree_on_disk(tmp_path / "squashed")


def test_an_ordinary_user_gets_no_special_bits_and_no_owners(both: tuple[BuiltImage, BuiltImage], shared_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: another account than root; the other tests run as this one")
    squashed, built = both
    shared_path.chmod(0o777)
    copies: list[Path] = []
    for origin in (squashed.sif, *source(built).layers, *source(built).indexes):  # type: ignore[attr-defined]  # LayeredSandbox
        copies.append(shared_path / f"{len(copies)}")
        shutil.copy(origin, copies[-1])
        copies[-1].chmod(0o644)
    middle = (len(copies) + 1) // 2
    moved = dataclasses.replace(source(built), layers=tuple(copies[1:middle]), indexes=tuple(copies[middle:]))  # type: ignore[type-var]

    def as_user() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.umask(0o077)
        unpack(copies[0], shared_path / "squashed", deadline=60)
        moved.unpack(shared_path / "layered", deadline=60, shield=NO_SHIELD)

    assert child_process.end(child_process.start(as_user)) == 0
    trees = [
        {path: node._replace(mode=node.mode & 0o777) for path, node in tree_on_disk(shared_path / name).items()}
        for name in ("layered", "squashed")
    ]
    assert stat.S_IMODE((shared_path / "layered/set-user-id").stat().st_mode) == 0o755
    assert trees[0] == trees[1]


def test_an_image_that_does_not_start_is_refused(tmp_path: Path) -> None:
    built = layered([tar([file("bin/sh", b"#!/no/interpreter\n", mode=0o755)])], tmp_path)
    source(built).unpack(tmp_path / "tree", deadline=60, shield=NO_SHIELD)
    with pytest.raises(TestRunError, match="the test run of the finished sandbox failed"):
        source(built).check(tmp_path / "tree")


def test_an_image_without_a_shell_is_not_run_and_says_so(tmp_path: Path) -> None:
    built = layered([tar([file("etc/motd")])], tmp_path)
    source(built).unpack(tmp_path / "tree", deadline=60, shield=NO_SHIELD)
    test, reason = source(built).check(tmp_path / "tree")
    assert test == "structure"
    assert reason


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=17m,nr_inodes=100", "tmpfs"]
    if os.geteuid() != 0 or subprocess.run(["mount", *options, place], check=False).returncode != 0:
        pytest.skip("NOT TESTED: a small file system; it takes root, and the right to mount")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("entries", [[file("a", bytes(2 << 20))], [file(f"d{number}/a", b"1") for number in range(200)]])
def test_a_full_disk_is_reported_and_nothing_is_left(entries: list[Entry], small_disk: Path, tmp_path: Path) -> None:
    built = layered([tar(entries)], tmp_path)
    with pytest.raises(SpaceError):
        source(built).unpack(small_disk / "tree", deadline=60, shield=NO_SHIELD)
    assert list(small_disk.iterdir()) == []


def test_only_the_catalog_mark_is_more_than_the_image_has(both: tuple[BuiltImage, BuiltImage], tmp_path: Path) -> None:
    source(both[1]).unpack(tmp_path / "tree", deadline=60, shield=NO_SHIELD)
    (tmp_path / "tree/opt/lib/more").touch()
    with pytest.raises(BuildError, match=r"opt/lib/more.? is not in the file index"):
        source(both[1]).check(tmp_path / "tree")
    assert (tmp_path / "tree" / CATALOG_MARK).stat().st_size == 0
