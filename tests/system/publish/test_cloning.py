"""A clone that was changed by the difference of two file indexes is the same tree as the newer SIF unpacked."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from publisher.build.sandbox import patch_clone, unpack
from publisher.build.sif import DATA_OFFSET, write_sif_header
from publisher.errors import RepositoryError
from publisher.fileindex.format import FileIndexWriter, read_raw_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path


pytestmark = pytest.mark.system

KINDS = {stat.S_IFREG: b"0", stat.S_IFLNK: b"2", stat.S_IFDIR: b"5", stat.S_IFIFO: b"6"}
DEADLINE = 60


class Build:
    """A tree, its SIF, its sandbox and its file index."""

    def __init__(self, where: Path) -> None:
        self.tree = where / "tree"
        self.sif = where / "image.sif"
        self.sandbox = where / "sandbox"
        self.index = b""

    def finish(self) -> Build:
        seen_as_root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
        argv = [
            "mksquashfs",
            str(self.tree),
            str(self.sif),
            "-offset",
            str(DATA_OFFSET),
            "-quiet",
            "-no-progress",
            "-comp",
            "zstd",
        ]
        subprocess.run([*seen_as_root, *argv], check=True, capture_output=True)
        write_sif_header(self.sif, architecture="amd64", identity=b"0" * 16, epoch=0)
        unpack.unpack(self.sif, self.sandbox, deadline=DEADLINE)
        out = io.BytesIO()
        writer = FileIndexWriter(out)
        inodes: dict[int, bytes] = {}
        for path in sorted(self.tree.rglob("*")):
            status, name = path.lstat(), os.fsencode(path.relative_to(self.tree))
            kind, content = KINDS[stat.S_IFMT(status.st_mode)], b""
            if kind == b"2":
                content = os.fsencode(path.readlink())
            elif kind == b"0":
                content = hashlib.sha256(path.read_bytes()).digest()
                first = inodes.setdefault(status.st_ino, name)
                kind, content = (kind, content) if first == name else (b"1", b"./" + first)
            mode, size = stat.S_IMODE(status.st_mode), status.st_size if kind == b"0" else 0
            writer.add(kind, b"./" + name, mode, status.st_uid, status.st_gid, size, int(status.st_mtime), content)
        writer.close()
        self.index = out.getvalue()
        return self

    def extract(self, target: Path, paths: Collection[bytes]) -> None:
        unpack.extract_paths(self.sif, target, paths, deadline=DEADLINE)

    def lines(self) -> Iterator[bytes]:
        return read_raw_lines(io.BytesIO(self.index))


def aged(tree: Path) -> None:
    """Set one time for everything, as if it came from the same layers."""
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)


def first(where: Path) -> Build:
    where.mkdir()
    build = Build(where)
    for name in ("usr/bin", "usr/lib/deep/er", "etc", "var", "empty"):
        (build.tree / name).mkdir(parents=True)
    for number in range(40):
        (build.tree / "usr/lib" / f"lib{number}.so").write_text(f"library {number}")
    for name in ("usr/bin/tool", "etc/conf", "usr/lib/deep/er/file", "var/log"):
        (build.tree / name).write_text(name)
        (build.tree / name).chmod(0o755)
    (build.tree / "bin").symlink_to("usr/bin")
    (build.tree / "outside").symlink_to("/etc")
    os.link(build.tree / "usr/lib/lib0.so", build.tree / "usr/lib/same.so")
    aged(build.tree)
    return build


def second(before: Build, where: Path, work: Callable[[Path], object]) -> Build:
    where.mkdir()
    build = Build(where)
    subprocess.run(["cp", "-a", before.tree, build.tree], check=True)
    work(build.tree)
    return build.finish()


def cloned(before: Build, after: Build, where: Path) -> Path:
    patch = patch_clone.make_patch(before.lines, after.lines)
    assert patch is not None
    clone = where / "clone"
    subprocess.run(["cp", "-a", "--no-preserve=links", before.sandbox, clone], check=True)
    patch_clone.apply_patch(clone, patch, after.extract)
    assert sorted(path.name for path in where.iterdir() if path.name.startswith("clone")) == ["clone"]
    return clone


def shown(tree: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in (tree, *tree.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        target = str(path.readlink()) if path.is_symlink() else ""
        seconds = 0 if path.is_symlink() else int(status.st_mtime)
        found[str(path.relative_to(tree))] = (status.st_mode, status.st_uid, status.st_gid, seconds, content, target)
    return found


def replaced(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def a_file_becomes_a_directory(tree: Path) -> None:
    (tree / "etc/conf").unlink()
    (tree / "etc/conf/d").mkdir(parents=True)
    (tree / "etc/conf/d/x").write_text("x")


def a_directory_becomes_a_link(tree: Path) -> None:
    shutil.rmtree(tree / "usr/lib/deep")
    (tree / "usr/lib/deep").symlink_to("../../outside")


def a_link_becomes_a_directory(tree: Path) -> None:
    (tree / "bin").unlink()
    (tree / "bin").mkdir()
    (tree / "bin/tool").write_text("another")


def attributes(tree: Path) -> None:
    (tree / "etc").chmod(0o711)
    (tree / "etc/conf").chmod(0o600)
    tree.chmod(0o750)
    if os.geteuid() == 0:
        os.chown(tree / "etc/conf", 7, 8)
        os.chown(tree / "var", 9, 10)
        (tree / "usr/bin/tool").chmod(0o4755)
        (tree / "var").chmod(0o1777)


def odd_names(tree: Path) -> None:
    for name in ("sp ace", "st*r", "q[x]?", "back\\slash", "é", "tab\tx", '"quoted"', "-rf", "usr/#hash", "usr/ lead", "trail "):
        (tree / name).write_text(name)


def another_name_of_a_file(tree: Path) -> None:
    """The line of a hard link in the index is unchanged, but it names another file now."""
    (tree / "usr/lib/lib0.so").write_text("changed in place, and so under both of its names")


CHANGES: list[Callable[[Path], object]] = [
    lambda tree: (tree / "usr/bin/tool").write_text("changed"),
    lambda tree: (tree / "usr/bin/tool").write_text("usr/bin/TOOL"),
    lambda tree: os.utime(tree / "usr/bin/tool", (5, 5)),
    lambda tree: (tree / "etc/conf").unlink(),
    lambda tree: (tree / "new/er").mkdir(parents=True),
    lambda tree: shutil.rmtree(tree / "usr/lib/deep"),
    lambda tree: os.mkfifo(tree / "var/fifo"),
    lambda tree: os.link(tree / "etc/conf", tree / "etc/conf.too"),
    lambda tree: replaced(tree / "usr/lib/same.so", "no more the same"),
    lambda tree: replaced(tree / "usr/lib/lib0.so", "no more the same"),
    lambda tree: tree,
    a_file_becomes_a_directory,
    a_directory_becomes_a_link,
    a_link_becomes_a_directory,
    attributes,
    odd_names,
    another_name_of_a_file,
]


@pytest.mark.parametrize("work", CHANGES, ids=range(len(CHANGES)))
def test_a_changed_clone_is_what_unpacking_gives(tmp_path: Path, work: Callable[[Path], object]) -> None:
    before = first(tmp_path / "before").finish()
    after = second(before, tmp_path / "after", work)
    assert shown(cloned(before, after, tmp_path)) == shown(after.sandbox)


@pytest.mark.parametrize("seed", range(10))
def test_any_changes_together_give_what_unpacking_gives(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    chosen = dice.sample([work for work in CHANGES if work is not a_link_becomes_a_directory], 6)

    def work(tree: Path) -> None:
        for one in chosen:
            try:
                one(tree)
            except FileNotFoundError:  # another one has taken it away
                continue

    before = first(tmp_path / "before").finish()
    after = second(before, tmp_path / "after", work)
    assert shown(cloned(before, after, tmp_path)) == shown(after.sandbox)


def test_what_has_little_in_common_is_not_similar(tmp_path: Path) -> None:
    def rewrite(count: int) -> Callable[[Path], None]:
        def work(tree: Path) -> None:
            for number in range(count):
                (tree / "usr/lib" / f"lib{number}.so").write_text("other")

        return work

    before = first(tmp_path / "before").finish()
    total = sum(1 for _ in before.lines())
    few = second(before, tmp_path / "few", rewrite(total // 2 - 5))
    many = second(before, tmp_path / "many", rewrite(total // 2 + 5))
    patch = patch_clone.make_patch(before.lines, few.lines)
    assert patch is not None
    assert len(patch.added) + patch.unchanged == total
    assert patch_clone.make_patch(before.lines, many.lines) is None


@pytest.mark.parametrize("name", ["#hash", " lead", "line\nfeed"])
def test_a_name_that_cannot_be_asked_for_is_not_cloned_around(tmp_path: Path, name: str) -> None:
    before = first(tmp_path / "before").finish()
    after = second(before, tmp_path / "after", lambda tree: (tree / name).write_text(name))
    assert patch_clone.make_patch(before.lines, after.lines) is None


def test_a_clone_that_is_not_what_its_index_says_is_refused_and_no_link_of_it_is_followed(tmp_path: Path) -> None:
    """A link where the index has a directory is not followed: its target stays untouched."""
    before = first(tmp_path / "before").finish()
    after = second(before, tmp_path / "after", lambda tree: (tree / "etc/conf").unlink())
    patch = patch_clone.make_patch(before.lines, after.lines)
    assert patch is not None
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "conf").write_text("of this host")
    shutil.rmtree(before.sandbox / "etc")
    (before.sandbox / "etc").symlink_to(precious)
    with pytest.raises(RepositoryError, match="cannot be changed"):
        patch_clone.apply_patch(before.sandbox, patch, after.extract)
    assert (precious / "conf").read_text() == "of this host"


def test_a_sif_that_lacks_what_the_index_says_is_refused(tmp_path: Path) -> None:
    before = first(tmp_path / "before").finish()
    after = second(before, tmp_path / "after", lambda tree: (tree / "etc/more").write_text("more"))
    patch = patch_clone.make_patch(before.lines, after.lines)
    assert patch is not None
    with pytest.raises(RepositoryError, match="cannot be changed"):
        patch_clone.apply_patch(before.sandbox, patch, before.extract)
