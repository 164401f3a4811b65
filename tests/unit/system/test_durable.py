from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

import pytest

from publisher.errors import BrokenHostError, OriginError, SpaceError
from publisher.system import durable
from tests.support.machine import child_process

if TYPE_CHECKING:
    from pathlib import Path


def fail_with(code: int, hint: str | None = None) -> None:
    with durable.failures(OriginError, "cannot store it", hint):
        raise OSError(code, os.strerror(code), "/there")


def test_tokens_are_names_that_nothing_else_has() -> None:
    tokens = {durable.token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(token) for token in tokens} == {16}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_device_or_quota_is_a_lack_of_space(code: int) -> None:
    with pytest.raises(SpaceError, match=f"^cannot store it: {os.strerror(code)} ") as failure:
        fail_with(code)
    assert failure.value.hint == "free space there and run again"


def test_another_failure_is_the_error_asked_for_and_keeps_reason_and_hint() -> None:
    with pytest.raises(OriginError, match=r"cannot store it: /there: Permission denied") as failure:
        fail_with(errno.EACCES, "ask")
    assert failure.value.hint == "ask"
    assert isinstance(failure.value.__cause__, PermissionError)


def test_the_hint_given_also_serves_for_a_full_device() -> None:
    with pytest.raises(SpaceError) as failure:
        fail_with(errno.ENOSPC, "the next run makes up for it")
    assert failure.value.hint == "the next run makes up for it"


def test_what_is_no_failure_of_the_system_passes() -> None:
    with pytest.raises(ValueError, match="a bug"), durable.failures(OriginError, "cannot"):
        raise ValueError("a bug")


def test_only_errors_of_the_host_are_expected_failures() -> None:
    assert isinstance(durable.host_failure(OSError(errno.ENOSPC, "full")), SpaceError)
    broken = durable.host_failure(OSError(errno.EIO, "Input/output error", "/there"))
    assert isinstance(broken, BrokenHostError)
    assert "/there" in str(broken)
    assert "dmesg" in str(broken)
    assert durable.host_failure(FileNotFoundError(errno.ENOENT, "no such file")) is None


def test_a_file_system_is_synchronised_as_often_as_asked(tmp_path: Path) -> None:
    with durable.durable(tmp_path) as sync:
        sync()
        sync()
    with pytest.raises(OSError, match=str(tmp_path)) as failure:
        sync()
    assert failure.value.errno == errno.EBADF


def test_only_a_directory_that_is_there_is_opened_for_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(OSError, match=name), durable.durable(tmp_path / name):
            pytest.fail("it was opened")


def test_files_links_and_nothing_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "link", "dangling", "missing"):
        durable.delete(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/file").exists()


def test_a_tree_is_deleted_and_what_it_links_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "tree/a/b").mkdir(parents=True)
    (tmp_path / "tree/a/to").symlink_to(tmp_path / "kept")
    os.mkfifo(tmp_path / "tree/fifo")
    durable.delete(tmp_path / "tree")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]


def test_a_tree_without_write_permissions_is_deleted_by_an_ordinary_user(tmp_path: Path) -> None:
    deepest = tmp_path / "tree/a/b"
    deepest.mkdir(parents=True)
    (deepest / "file").touch()
    for directory in (deepest, deepest.parent, tmp_path / "tree"):
        directory.chmod(0)
    child_process.unprivileged(lambda: durable.delete(tmp_path / "tree"))
    assert list(tmp_path.iterdir()) == []


def test_a_tree_of_any_depth_and_width_is_deleted(tmp_path: Path) -> None:
    """Deeper than a path may be long (PATH_MAX) and than Python recurses; wider than is read at a time."""
    top = tmp_path / "tree"
    top.mkdir()
    for number in range(5000):
        (top / str(number)).touch()
    directory = os.open(top, os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("a", dir_fd=directory)
        below = os.open("a", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    durable.delete(top)
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_a_directory_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of the tree puts it there after the directory was looked at, when root deletes the tree."""
    (tmp_path / "kept").mkdir(mode=0o755)
    (tmp_path / "tree/a").mkdir(parents=True)
    look = os.scandir

    def swapped(directory: int) -> list[os.DirEntry[str]]:
        with look(directory) as found:
            entries = list(found)
        for entry in entries:
            assert entry.is_dir(follow_symlinks=False)
            os.rmdir(entry.name, dir_fd=directory)
            os.symlink(tmp_path / "kept", entry.name, dir_fd=directory)
        return entries

    monkeypatch.setattr(os, "scandir", lambda directory: contextlib.nullcontext(swapped(directory)))
    with pytest.raises(OSError, match="Not a directory"):
        durable.delete(tmp_path / "tree")
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o755


def test_what_a_killed_deletion_leaves_is_beside_and_named_after_the_tree(tmp_path: Path) -> None:
    for point in range(1000):
        (tmp_path / "removed.1/a/b/c").mkdir(parents=True)
        if not child_process.killed(point, lambda: durable.delete(tmp_path / "removed.1")):
            break
        for left in list(tmp_path.iterdir()):
            assert left.name.startswith("removed.1")
            durable.delete(left)
    assert point > 5
    assert list(tmp_path.iterdir()) == []
