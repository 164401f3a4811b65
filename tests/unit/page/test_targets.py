"""Where the page is written to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.errors import PageError
from publisher.page.targets import PageDirectory, PageInOrigin
from publisher.targets.origins.directory import DirectoryOrigin

if TYPE_CHECKING:
    from pathlib import Path


def test_files_in_a_directory_are_replaced_as_a_whole_and_readable_for_a_web_server(tmp_path: Path) -> None:
    target = PageDirectory(tmp_path / "www/page")
    target.write("image/htc/rocky:9.html", b"old")
    target.write("image/htc/rocky:9.html", b"new")
    path = tmp_path / "www/page/image/htc/rocky:9.html"
    assert path.read_bytes() == b"new"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o555) == (0o644, 0o555)
    assert [one.name for one in path.parent.iterdir()] == ["rocky:9.html"]
    target.remove("image/htc/rocky:9.html")
    target.remove("image/htc/rocky:9.html")
    assert not path.exists()


def test_no_file_leaves_the_directory(tmp_path: Path) -> None:
    target = PageDirectory(tmp_path / "page")
    (tmp_path / "page").mkdir()
    (tmp_path / "page/image").symlink_to(tmp_path)
    for path in ("../x", "image/x", "/x"):
        with pytest.raises(PageError):
            target.write(path, b"")
    assert not (tmp_path / "x").exists()


def test_a_directory_that_cannot_be_written_to_is_an_expected_failure(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("a file")
    with pytest.raises(PageError, match="cannot be written"):
        PageDirectory(tmp_path / "page").write("index.html", b"")


def test_the_page_in_an_origin_is_beside_the_manifest(tmp_path: Path) -> None:
    target = PageInOrigin(DirectoryOrigin(tmp_path), "origin")
    target.write("index.html", b"old")
    target.write("index.html", b"new")
    assert (tmp_path / "page/index.html").read_bytes() == b"new"
    target.remove("index.html")
    assert not (tmp_path / "page/index.html").exists()
