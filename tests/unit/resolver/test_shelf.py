from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from publisher.resolver.errors import CacheError
from publisher.resolver.shelf import Shelf

CONTENT = b"content"
SHA = hashlib.sha256(CONTENT).hexdigest()


def made(root: Path, *owners: int, mode: int = 0o700) -> Shelf:
    shelf = Shelf(str(root), owners or (os.geteuid(), 0), mode)
    shelf.make()
    return shelf


def put(shelf: Shelf, name: str = "") -> Path:
    shelf.directory("sif", SHA[:2])
    Path(shelf.path(SHA, ".part")).write_bytes(CONTENT)
    shelf.put(SHA, name)
    return Path(shelf.path(SHA))


def test_what_was_put_is_there_with_its_name(tmp_path: Path) -> None:
    shelf = made(tmp_path / "cache")
    assert not shelf.has(SHA)
    assert put(shelf, "htc/rocky:9").read_bytes() == CONTENT
    assert shelf.has(SHA)
    (one,) = shelf.sifs()
    assert (one.sha256, one.size, one.name) == (SHA, len(CONTENT), "htc/rocky:9")


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "x" * 5000])
def test_a_name_cannot_spoil_a_note(tmp_path: Path, name: str) -> None:
    shelf = made(tmp_path / "cache")
    put(shelf, name)
    assert shelf.has(SHA)
    assert next(shelf.sifs()).name in ("", "x" * 125)


def test_a_use_is_noted_once_a_minute_and_leaves_the_sif_alone(tmp_path: Path) -> None:
    shelf = made(tmp_path / "cache")
    before = put(shelf).stat()
    note = Path(shelf.path(SHA, ".seen"))
    for age, is_noted in ((30, False), (90, True)):
        os.utime(note, (before.st_mtime - age,) * 2)
        shelf.has(SHA)
        assert (note.stat().st_mtime >= before.st_mtime - 30.5) is (is_noted or age == 30)
    assert note.stat().st_mtime > before.st_mtime - 30
    assert Path(shelf.path(SHA)).stat() == before


def test_without_a_note_a_sif_is_not_there_until_it_was_hashed(tmp_path: Path) -> None:
    shelf = made(tmp_path / "cache")
    put(shelf)
    note = shelf.hide(SHA)
    assert not shelf.has(SHA)
    shelf.show(SHA, note)
    assert shelf.has(SHA)
    assert shelf.hide(SHA)
    assert shelf.hide(SHA) is None
    shelf.show(SHA, None)
    assert not shelf.has(SHA)
    assert shelf.has_after_all(SHA, "name")
    assert shelf.has(SHA)


def test_a_note_of_another_file_counts_for_nothing(tmp_path: Path) -> None:
    shelf = made(tmp_path / "cache")
    path = put(shelf)
    copy = path.with_suffix(".copy")
    copy.write_bytes(CONTENT)
    os.utime(copy, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    copy.rename(path)
    assert not shelf.has(SHA)


@pytest.mark.parametrize("replaced", [b"other", None])
def test_what_has_other_bytes_or_is_a_link_is_removed_with_its_note(tmp_path: Path, replaced: bytes | None) -> None:
    shelf = made(tmp_path / "cache")
    path = put(shelf)
    path.unlink()
    path.symlink_to("/etc/passwd") if replaced is None else path.write_bytes(replaced)
    assert not shelf.has_after_all(SHA)
    assert not os.path.lexists(path)
    assert replaced is None or not Path(shelf.path(SHA, ".seen")).exists()
    assert not shelf.has_after_all(SHA)


def test_directories_have_their_mode_whatever_the_umask_says(tmp_path: Path) -> None:
    for umask in (0, 0o077):
        before = os.umask(umask)
        try:
            for mode in (0o700, 0o755):
                shelf = made(tmp_path / f"{umask}.{mode}", mode=mode)
                path = put(shelf)
                assert [place.stat().st_mode & 0o7777 for place in (path.parent, path.parents[1], path.parents[2])] == [mode] * 3
                assert path.stat().st_mode & 0o777 == 0o444
                assert Path(shelf.path(SHA, ".seen")).stat().st_mode & 0o777 == 0o644
        finally:
            os.umask(before)


@pytest.mark.parametrize(("mode", "is_safe"), [(0o755, True), (0o1777, True), (0o777, False), (0o757, False)])
def test_a_parent_in_which_others_may_replace_it_is_refused(tmp_path: Path, mode: int, is_safe: bool) -> None:
    shelf = made(tmp_path / "parent/cache")
    (tmp_path / "parent").chmod(mode)
    if is_safe:
        shelf.check()
    else:
        with pytest.raises(CacheError, match=rf"others may replace the cache {shelf.root} \(chmod \+t {tmp_path}/parent"):
            shelf.check()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's directories")
def test_a_group_that_may_replace_it_must_be_the_owners_own(tmp_path: Path) -> None:
    shelf = made(tmp_path / "parent/cache")
    (tmp_path / "parent").chmod(0o775)
    os.chown(tmp_path / "parent", 12345, 12345)
    shelf.check()
    os.chown(tmp_path / "parent", 12345, 54321)
    with pytest.raises(CacheError, match="others may replace"):
        shelf.check()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's link")
def test_somebody_elses_link_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "cache")
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    Shelf(str(tmp_path / "link"), (0,)).check()
    os.chown(tmp_path / "link", 12345, 12345, follow_symlinks=False)
    with pytest.raises(CacheError, match="belongs to user 12345"):
        Shelf(str(tmp_path / "link"), (0,)).check()


@pytest.mark.parametrize("place", ["sif", f"sif/{SHA[:2]}", f"sif/{SHA[:2]}/{SHA}.sif", f"sif/{SHA[:2]}/{SHA}.seen"])
def test_everything_on_the_way_to_a_stored_sif_must_be_its_owners_alone(tmp_path: Path, place: str) -> None:
    shelf = made(tmp_path / "store", mode=0o755)
    put(shelf)
    assert shelf.trusts(SHA)
    path = tmp_path / "store" / place
    mode = path.stat().st_mode & 0o7777
    path.chmod(mode | 0o020)
    assert not shelf.trusts(SHA)
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        assert not shelf.trusts(SHA)
        assert Shelf(shelf.root, (0, 12345)).trusts(SHA)
