from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from publisher.errors import OriginError
from publisher.system.ownership import check_own_directory, is_own_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STRANGER = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: files of other accounts; only root makes them")


def check(path: Path) -> None:
    check_own_directory(path, "state directory", "do this", OriginError)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "above" / "state"
    made.mkdir(parents=True, mode=0o755)
    made.parent.chmod(0o755)
    return made


def test_a_directory_of_ones_own_is_trusted(directory: Path) -> None:
    check(directory)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_directory_that_others_may_write_to_is_not(mode: int, directory: Path) -> None:
    directory.chmod(mode)
    with pytest.raises(OriginError, match=r"other accounts may write to the state directory .* not trusted \(do this\)"):
        check(directory)


@pytest.mark.parametrize(("mode", "who"), [(0o777, "everybody"), (0o775, "its group")])
def test_a_directory_that_others_may_replace_is_not(mode: int, who: str, directory: Path) -> None:
    directory.parent.chmod(mode)
    with pytest.raises(
        OriginError, match=rf"other accounts may replace .*{who} may write to .*run chmod go-w .*above, or chmod \+t"
    ):
        check(directory)
    directory.parent.chmod(0o1777)
    check(directory)


@needs_root
def test_a_directory_of_another_account_is_not_nor_is_a_link_of_theirs(directory: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(directory)
    check(link)
    os.lchown(link, STRANGER, STRANGER)
    with pytest.raises(OriginError, match=f"belongs to another account, user {STRANGER}"):
        check(link)
    os.chown(directory, STRANGER, STRANGER)
    with pytest.raises(OriginError, match=f"belongs to another account, user {STRANGER}"):
        check(directory)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.chmod(0o664),
        lambda path: path.unlink(),
        lambda path: (path.rename(path.with_name("other")), path.symlink_to("other")),
        pytest.param(lambda path: os.chown(path, STRANGER, STRANGER), marks=needs_root),
    ],
    ids=["writable", "missing", "link", "stranger's"],
)
def test_only_a_regular_file_that_nobody_else_can_write_is_ones_own(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o644)
    assert is_own_file(path)
    spoil(path)
    assert not is_own_file(path)
