from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from publisher.resolver import leftovers, pins, slots
from publisher.resolver.shelf import Shelf
from tests.support import children

SHA, OTHER = "a" * 64, "b" * 64
HOUR = 3600


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(str(tmp_path / "cache"), (os.geteuid(), 0))
    made.make()
    for directory in ("locks", "failures", "tally"):
        made.directory(directory)
    for sha256 in (SHA, OTHER):
        made.directory("sif", sha256[:2])
    return made


def lay(shelf: Shelf, name: str, age: float) -> Path:
    path = Path(shelf.root) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left")
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        (f"sif/aa/{SHA}.part", HOUR),
        (f"sif/aa/{SHA}.seen", HOUR),
        ("manifest/images.example.org/.index.json.0123", HOUR),
        ("manifest/images.example.org/shards/.x.json.0123", HOUR),
        (f"locks/{SHA}", HOUR),
        ("failures/answer-0123", 24 * HOUR),
    ],
)
def test_what_is_old_and_of_no_use_goes(shelf: Shelf, name: str, seconds: int) -> None:
    path = lay(shelf, name, seconds - 60)
    assert leftovers.sweep(shelf) == 0
    assert path.exists()
    path = lay(shelf, name, seconds + 60)
    assert leftovers.sweep(shelf) == 1
    assert not path.exists()


def test_what_is_in_use_or_of_use_stays_however_old_it_is(shelf: Shelf) -> None:
    names = (
        *(f"sif/aa/{SHA}.sif", f"sif/aa/{SHA}.seen", f"locks/{SHA}", f"sif/bb/{OTHER}.part", f"locks/{OTHER}"),
        *("tally/hits", "facts.json", "manifest/images.example.org/index.json"),
    )
    paths = [lay(shelf, name, 10 * 24 * HOUR) for name in names]
    with slots.turn([f"{shelf.root}/locks/{OTHER}"], 0):
        assert leftovers.sweep(shelf) == 0
    assert [path for path in paths if not path.exists()] == []


def test_a_lock_that_somebody_holds_stays(shelf: Shelf) -> None:
    path = lay(shelf, f"locks/{SHA}", 2 * HOUR)
    with slots.turn([str(path)], 0):
        assert leftovers.sweep(shelf) == 0
    assert path.exists()


def test_pins_of_dead_processes_go_and_tell_when_the_sif_was_used(shelf: Shelf) -> None:
    """In a store jobs cannot write that down themselves."""
    child = children.start(signal.pause)
    pins.pin(shelf.root, SHA, child)
    lay(shelf, f"sif/aa/{SHA}.sif", 0)
    note = lay(shelf, f"sif/aa/{SHA}.seen", 9 * HOUR)
    assert leftovers.sweep(shelf) == 0
    os.kill(child, signal.SIGKILL)
    children.end(child)
    assert leftovers.sweep(shelf) == 1
    assert note.stat().st_mtime > time.time() - HOUR
    assert list((Path(shelf.root) / "pins").iterdir()) == []


def test_sweeping_is_not_done_again_within_ten_minutes(shelf: Shelf) -> None:
    first = lay(shelf, f"sif/aa/{SHA}.part", 2 * HOUR)
    leftovers.sweep_sometimes(shelf)
    assert not first.exists()
    second = lay(shelf, f"sif/aa/{SHA}.part", 2 * HOUR)
    leftovers.sweep_sometimes(shelf)
    assert second.exists()
    os.utime(Path(shelf.root) / "swept", (time.time() - 700,) * 2)
    leftovers.sweep_sometimes(shelf)
    assert not second.exists()


def test_links_are_removed_not_followed(shelf: Shelf, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / ".old").touch()
    os.utime(precious / ".old", (1, 1))
    (Path(shelf.root) / "sif/cc").symlink_to(precious)
    leftovers.sweep(shelf)
    assert (precious / ".old").exists()
