from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.errors import OriginError, RepositoryError
from publisher.system import safepath
from tests.support.images.trees import private_umask

if TYPE_CHECKING:
    from pathlib import Path

PARTS = st.lists(
    st.text(alphabet="ab.", min_size=1, max_size=3).filter(lambda part: part not in (".", "..")), min_size=1, max_size=4
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    "name", ["a", "htc/rocky:9", ".images/0a/" + "f" * 62, "...", "..a/.b", "a b", "Dvořák/$(x)", "x" * 255, "é" * 127, "a\\b"]
)
def test_a_sound_name_is_split(name: str) -> None:
    assert "/".join(safepath.split(name, RepositoryError)) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty part"),
        ("/a", "empty part"),
        ("a//b", "empty part"),
        ("a/", "empty part"),
        (".", "a part '.'"),
        ("a/../b", "a part '..'"),
        ("a\nb", "control characters"),
        ("a\x00", "control characters"),
        ("a\x7f", "control characters"),
        ("\udcff", "not UTF-8"),
        ("x" * 256, "more than 255 bytes"),
        ("a/" + "é" * 128, "more than 255 bytes"),
    ],
    ids=ascii,
)
def test_an_unsafe_name_is_refused_with_its_problem_in_one_printable_line(name: str, problem: str) -> None:
    with pytest.raises(OriginError, match=problem) as refusal:
        safepath.split(name, OriginError)
    assert str(refusal.value).isprintable()


def test_a_name_is_located_below_the_root_whether_it_is_there_or_not(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for parts in (("a", "b"), ("a", "b", "c"), ("x", "y", "z")):
        assert safepath.locate(tmp_path, parts, RepositoryError) == tmp_path.joinpath(*parts)


def test_what_stands_at_the_name_itself_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    assert safepath.locate(tmp_path, ("link",), RepositoryError) == tmp_path / "link"


def test_a_name_below_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/link").symlink_to(".")
    (tmp_path / "a/file").touch()
    with pytest.raises(RepositoryError, match="a/link is a symbolic link"):
        safepath.locate(tmp_path, ("a", "link", "b", "c"), RepositoryError)
    with pytest.raises(RepositoryError, match="a/file is not a directory"):
        safepath.locate(tmp_path, ("a", "file", "b"), RepositoryError)


@pytest.mark.parametrize(
    ("link", "target", "meant"),
    [
        ("htc/rocky:9", "../.images/0a/x", ".images/0a/x"),
        ("a:1", ".images/0a/x", ".images/0a/x"),
        (".arch/arm64/htc/rocky:9", "../../../.images/0a/x", ".images/0a/x"),
        ("htc/rocky:latest", "rocky:9", "htc/rocky:9"),
    ],
)
def test_a_target_is_the_name_it_stands_for(link: str, target: str, meant: str) -> None:
    assert "/".join(safepath.check_target(tuple(link.split("/")), target, RepositoryError)) == meant


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("../../x", "leaves the tree"),
        ("..", "above the link"),
        ("/etc", "absolute"),
        ("", "empty part"),
        ("x/../y", r"a part '\.\.'"),
        ("./x", r"a part '\.'"),
        ("../$(HOME)/x", "CVMFS clients expand"),
        ("a\nb", "control characters"),
    ],
)
def test_an_unsafe_target_is_refused(target: str, problem: str) -> None:
    with pytest.raises(RepositoryError, match=problem):
        safepath.check_target(("htc", "rocky:9"), target, RepositoryError)


@given(link=PARTS, ups=st.integers(0, 5), steps=PARTS)
def test_a_target_is_either_refused_or_stays_inside(link: list[str], ups: int, steps: list[str]) -> None:
    target = "/".join([".."] * ups + steps)
    meant = posixpath.normpath(posixpath.join("/", *link[:-1], target))
    outside = ups >= len(link)
    try:
        found = safepath.check_target(tuple(link), target, RepositoryError)
    except RepositoryError:
        assert outside
    else:
        assert not outside
        assert "/" + "/".join(found) == meant


def test_directories_above_a_name_are_made_open_to_readers_whatever_the_umask(tmp_path: Path) -> None:
    with private_umask():
        safepath.make_parents(tmp_path, ("a", "b", "name"))
    assert [mode(tmp_path / made) for made in ("a", "a/b")] == [0o755, 0o755]
    assert not (tmp_path / "a/b/name").exists()


def test_a_directory_that_a_killed_run_left_closed_is_opened_and_more_is_not_taken_away(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2770)
    for name in ("closed", "shared"):
        safepath.make_parents(tmp_path, (name, "x"))
    assert mode(tmp_path / "closed") == 0o755
    assert mode(tmp_path / "shared") == 0o2775


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can give a directory to somebody else")
def test_somebody_elses_directory_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    os.chown(tmp_path / "a", 65534, 65534)
    safepath.open_to_readers(tmp_path / "a")
    assert mode(tmp_path / "a") == 0o700
