from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from publisher.build.sandbox.verify_tree import differences
from publisher.fileindex.format import FileIndexWriter, IndexedFile, read_file_index

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MTIME = 1_600_000_000


def indexed(root: Path) -> list[IndexedFile]:
    """The index of a tree as it stands."""
    out = io.BytesIO()
    writer = FileIndexWriter(out)
    for path in sorted(root.rglob("*")):
        status, name = path.lstat(), os.fsencode(path.relative_to(root))
        more = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        if path.is_symlink():
            writer.add(b"2", name, *more, 0, MTIME, os.fsencode(os.readlink(path)))  # noqa: PTH115 - bytes
        elif path.is_dir():
            writer.add(b"5", name, *more, 0, MTIME, b"")
        elif path.is_file():
            writer.add(b"0", name, *more, status.st_size, MTIME, hashlib.sha256(path.read_bytes()).digest())
        else:
            writer.add(b"6", name, *more, 0, MTIME, b"")
    writer.close()
    return list(read_file_index(io.BytesIO(out.getvalue())))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "etc" / "deep").mkdir(parents=True)
    (root / "etc/motd").write_text("hello\n")
    (root / "etc/deep" / "blank name\n").write_text("odd")
    (root / "etc/link").symlink_to("motd")
    os.mkfifo(root / "etc/fifo")
    for path in (root / "etc/motd", root / "etc/deep" / "blank name\n"):
        path.chmod(0o644)
        os.utime(path, (MTIME, MTIME))
    return root


def replaced(path: Path, content: str) -> None:
    before = path.stat()
    path.write_text(content)
    os.utime(path, (before.st_mtime, before.st_mtime))


def as_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def test_a_tree_that_is_as_its_index_says_has_no_differences(root: Path) -> None:
    lines = indexed(root)
    (root / ".cvmfscatalog").touch()
    assert list(differences(lines, str(root))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: replaced(root / "etc/motd", "jello\n"), "'etc/motd' has different content"),
        (lambda root: replaced(root / "etc/motd", "hello there\n"), "'etc/motd' has 12 bytes, not 6"),
        (lambda root: os.utime(root / "etc/motd", (1, 1)), f"'etc/motd' has modification time 1, not {MTIME}"),
        (lambda root: (root / "etc/motd").chmod(0o600), "'etc/motd' has mode 600, not 644"),
        (lambda root: (root / "etc/motd").unlink(), "'etc/motd' is missing"),
        (lambda root: as_link(root / "etc/motd"), "'etc/motd' is a symbolic link, not a file"),
        (lambda root: as_link(root / "etc/link"), "'etc/link' points to '/etc/passwd', not to 'motd'"),
        (lambda root: (root / "etc/more").touch(), "'etc/more' is not in the file index"),
    ],
)
def test_every_change_of_a_path_is_reported(root: Path, change: Callable[[Path], None], said: str) -> None:
    lines = indexed(root)
    change(root)
    assert list(differences(lines, str(root))) == [said]


def test_a_directory_that_became_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    lines = indexed(root)
    (root / "etc/deep").rename(tmp_path / "away")
    (root / "etc/deep").symlink_to(tmp_path / "away")
    assert list(differences(lines, str(root))) == [
        "'etc/deep' is a symbolic link, not a directory",
        "'etc/deep/blank name\\n' is missing",
    ]


def test_a_hard_link_may_be_a_separate_file_with_the_same_content(root: Path) -> None:
    """CVMFS keeps no hard links."""
    lines = [*indexed(root), IndexedFile("h", b"etc/again", 0o644, 0, 0, 0, MTIME, b"etc/motd")]
    replaced(root / "etc/motd", "hello\n")
    (root / "etc/again").write_text("hello\n")
    (root / "etc/again").chmod(0o644)
    os.utime(root / "etc/again", (MTIME, MTIME))
    assert list(differences(lines, str(root))) == []
    replaced(root / "etc/again", "jello\n")
    assert list(differences(lines, str(root))) == ["'etc/again' has different content"]


def test_of_some_paths_nothing_else_is_looked_at(root: Path) -> None:
    lines = [*indexed(root), IndexedFile("h", b"etc/again", 0o644, 0, 0, 0, MTIME, b"etc/motd")]
    replaced(root / "etc/motd", "jello\n")
    (root / "more").touch()
    os.link(root / "etc/motd", root / "etc/again")
    assert list(differences(lines, str(root), {b"etc/link", b"etc/again", b"etc/deep"})) == []
    shutil.rmtree(root / "etc/deep")
    assert list(differences(lines, str(root), {b"etc/motd", b"etc/deep"})) == [
        "'etc/motd' has different content",
        "'etc/deep' is missing",
    ]
    (root / "etc/again").unlink()
    (root / "etc/again").mkdir()
    assert list(differences(lines, str(root), {b"etc/again"})) == ["'etc/again' is a directory, not a file"]
