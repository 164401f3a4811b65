from __future__ import annotations

import json
import multiprocessing
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.hook import trace

if TYPE_CHECKING:
    from pathlib import Path

LARGE = 1 << 30


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_an_object(tmp_path: Path) -> None:
    path = tmp_path / "log" / "trace"
    trace.append(str(path), {"image": "é\n", "bytes": 7, "form": None}, LARGE)
    trace.append(str(path), {"image": "b"}, LARGE)
    assert lines(path) == [{"image": "é\n", "bytes": 7, "form": None}, {"image": "b"}]


def test_a_full_file_is_put_aside_once(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    for number in range(10):
        trace.append(str(path), {"number": number}, 40)
    assert [line["number"] for line in lines(path)] == [8, 9]
    assert [line["number"] for line in lines(tmp_path / "trace.1")] == [6, 7]
    assert {file.name for file in tmp_path.iterdir()} == {"trace", "trace.1"}


def test_a_line_that_is_too_long_loses_what_makes_it_so(tmp_path: Path) -> None:
    trace.append(str(tmp_path / "trace"), {"image": "x" * 10000, "code": 0}, LARGE)
    (line,) = lines(tmp_path / "trace")
    assert line == {"image": "x" * 200, "code": 0}


def test_it_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "trace").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        trace.append(str(tmp_path / "trace"), {"a": 1}, LARGE)
    assert not (tmp_path / "victim").exists()


def many(path: str, number: int) -> None:
    for count in range(50):
        trace.append(path, {"writer": number, "count": count, "filling": "x" * 1000}, 200_000)


def test_lines_of_jobs_that_start_together_never_mix_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=many, args=(str(path), number)) for number in range(5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [(line["writer"], line["count"]) for file in tmp_path.iterdir() for line in lines(file)]
    assert len(found) == len(set(found))
    assert len(found) == 250, "fewer than two files' worth"
