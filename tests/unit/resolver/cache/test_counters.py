from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.resolver.cache import counters

if TYPE_CHECKING:
    from pathlib import Path


def test_hits_and_downloads_are_counted(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert counters.read(root).hits == 0
    for _ in range(3):
        counters.count_hit(root)
    counters.count_download(root, 5_000_000_000, 12.25)
    counters.count_download(root, 7, 0.5)
    found = counters.read(root)
    assert (found.hits, found.downloads, found.bytes, found.seconds) == (3, 2, 5_000_000_007, 12.75)


def test_a_line_that_a_crash_cut_is_not_counted(tmp_path: Path) -> None:
    counters.count_download(str(tmp_path), 7, 1)
    with (tmp_path / "tally/fetched").open("a") as file:
        file.write("1 20")
    assert counters.read(str(tmp_path)).bytes == 7


def test_a_long_list_becomes_one_line_with_the_same_sums(tmp_path: Path) -> None:
    counters.count_hit(str(tmp_path))
    (tmp_path / "tally/fetched").write_text("1 1000 10\n" * 110_000)
    before = counters.read(str(tmp_path))
    counters.condense(str(tmp_path))
    assert (tmp_path / "tally/fetched").read_text() == "110000 110000000 1100000\n"
    after = counters.read(str(tmp_path))
    assert (after.downloads, after.bytes, after.seconds) == (before.downloads, before.bytes, before.seconds)
    counters.count_download(str(tmp_path), 1, 1)
    counters.condense(str(tmp_path))
    assert counters.read(str(tmp_path)).downloads == 110_001


def test_where_nothing_can_be_written_nothing_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    counters.count_hit(str(tmp_path / "file"))
    counters.condense(str(tmp_path / "file"))
    assert counters.read(str(tmp_path / "file")).hits == 0
