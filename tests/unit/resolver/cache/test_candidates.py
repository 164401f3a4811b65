from __future__ import annotations

import os
from typing import TYPE_CHECKING

from publisher.resolver.cache import candidates

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TOOL, OTHER = "docker://registry.example.org/theirs/tool:1", "oras://registry.example.org/other:2"


def test_jobs_of_all_users_are_added_up_most_wanted_first(tmp_path: Path) -> None:
    caches = []
    for name, images in (("one", [TOOL, OTHER]), ("two", [TOOL])):
        root = tmp_path / name
        root.mkdir(mode=0o700)
        for image in images:
            candidates.count(str(root), image)
        caches.append((os.geteuid(), str(root)))
    assert candidates.total(caches) == [(TOOL, 2), (OTHER, 1)]
    assert candidates.total([(os.geteuid() + 1, root) for _, root in caches]) == [], "somebody else's file"


def test_another_user_can_read_the_counts_and_list_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    candidates.count(str(tmp_path), TOOL)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path, tmp_path / "tally", tmp_path / "tally" / "candidates")]
    assert modes == [0o711, 0o711, 0o644]


def test_lines_that_no_hook_writes_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "tally").mkdir()
    (tmp_path / "tally" / "candidates").write_text(f"1 {TOOL}\nx {TOOL}\n1 \n1 a\x1b[2Jb\n1 {'x' * 301}\n²  {TOOL}\nno number\n")
    assert candidates.total([(os.geteuid(), str(tmp_path))]) == [(TOOL, 1)]
    assert candidates.total([(os.geteuid(), str(tmp_path / "absent"))]) == []


def test_a_long_file_is_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates.condense(str(tmp_path))
    for _ in range(3):
        candidates.count(str(tmp_path), TOOL)
    candidates.condense(str(tmp_path))
    file = tmp_path / "tally" / "candidates"
    assert file.read_text() == f"1 {TOOL}\n" * 3, "it is short"
    monkeypatch.setattr(candidates, "_MAX_BYTES", 50)
    candidates.condense(str(tmp_path))
    assert file.read_text() == f"3 {TOOL}\n"
