from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.resolver.system import stop_file

if TYPE_CHECKING:
    from pathlib import Path


def test_the_first_reason_stays(tmp_path: Path) -> None:
    path = tmp_path / "stop"
    assert not stop_file.exists(str(path))
    stop_file.request(str(path), "the first\nreason")
    stop_file.request(str(path), "another")
    assert stop_file.exists(str(path))
    assert path.read_text() == "the first reason\n"


def test_a_directory_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    stop_file.request(str(tmp_path / "absent" / "stop"), "why")
    assert not stop_file.exists(str(tmp_path / "absent" / "stop"))
