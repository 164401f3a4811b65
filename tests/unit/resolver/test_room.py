from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from publisher.resolver import pins, room, slots, tally
from publisher.resolver.errors import BusyError, RoomError
from publisher.resolver.room import Room
from publisher.resolver.shelf import Shelf
from tests.support import children

if TYPE_CHECKING:
    from pathlib import Path

OLD, MIDDLE, NEW, WANTED = "a" * 64, "b" * 64, "c" * 64, "d" * 64
SIZE = 1000
NOW, LONG = 0.0, 1e9
ENDLESS = (1 << 60, 0.0)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Three SIFs of which the first was not used for longest."""
    made = Shelf(str(tmp_path / "cache"), (os.geteuid(), 0))
    made.make()
    made.directory("locks")
    for age, sha256 in ((300, OLD), (200, MIDDLE), (100, NEW)):
        put(made, sha256)
        made.stamp(sha256, time.time() - age)
    made.directory("sif", WANTED[:2])
    return made


def put(shelf: Shelf, sha256: str) -> None:
    shelf.directory("sif", sha256[:2])
    with open(shelf.path(sha256, ".part"), "wb") as part:  # noqa: PTH123 - the shelf has paths as texts
        part.write(bytes(SIZE))
    shelf.put(sha256, "")


def there(shelf: Shelf) -> set[str]:
    return {one.sha256 for one in shelf.sifs() if shelf.has(one.sha256)}


def capped(shelf: Shelf, sifs: float) -> Room:
    return Room(shelf, (int(sifs * SIZE), 0.0), (0, 0.0))


def test_nothing_goes_while_there_is_room(shelf: Shelf) -> None:
    capped(shelf, 4).reserve(WANTED, SIZE, NOW)
    assert there(shelf) == {OLD, MIDDLE, NEW}


def test_the_least_recently_used_go_and_no_more_than_must(shelf: Shelf) -> None:
    capped(shelf, 3.5).reserve(WANTED, SIZE, NOW)
    assert there(shelf) == {MIDDLE, NEW}
    assert tally.counted(shelf.root, tally.EVICTIONS) == (1, SIZE)


def test_a_use_is_what_counts_not_the_arrival(shelf: Shelf) -> None:
    shelf.has(OLD)
    capped(shelf, 3).reserve(WANTED, SIZE, NOW)
    assert there(shelf) == {OLD, NEW}


def test_what_a_job_holds_stays(shelf: Shelf) -> None:
    pins.pin(shelf.root, OLD, os.getpid())
    capped(shelf, 3).reserve(WANTED, SIZE, NOW)
    assert there(shelf) == {OLD, NEW}


def test_where_room_cannot_be_made_nothing_goes(shelf: Shelf) -> None:
    pins.pin(shelf.root, OLD, os.getpid())
    with pytest.raises(RoomError, match=f"no room for the {3 * SIZE} bytes"):
        capped(shelf, 3).reserve(WANTED, 3 * SIZE, NOW)
    assert there(shelf) == {OLD, MIDDLE, NEW}
    with pytest.raises(RoomError):
        Room(shelf, None, ENDLESS).reserve(WANTED, SIZE, NOW)
    assert there(shelf) == {OLD, MIDDLE, NEW}


def test_a_cap_may_be_a_part_of_the_file_system(shelf: Shelf) -> None:
    with pytest.raises(RoomError):
        Room(shelf, (0, 0.0), (0, 0.0)).reserve(WANTED, 4 * SIZE, NOW)
    with pytest.raises(RoomError):
        Room(shelf, None, (0, 1.0)).reserve(WANTED, 4 * SIZE, NOW)
    Room(shelf, (0, 1.0), (0, 0.0)).reserve(WANTED, SIZE, NOW)
    assert there(shelf) == {OLD, MIDDLE, NEW}


def test_downloads_that_go_on_take_the_room_that_they_will_need(shelf: Shelf) -> None:
    other = "e" * 64
    capped(shelf, 5).reserve(other, SIZE, NOW)
    capped(shelf, 5).reserve(WANTED, SIZE, NOW)
    assert there(shelf) == {OLD, MIDDLE, NEW}
    with pytest.raises(RoomError):
        capped(shelf, 4.5).reserve("f" * 64, 4 * SIZE, NOW)
    capped(shelf, 5).release(other)
    capped(shelf, 5).reserve("f" * 64, SIZE, NOW)
    assert there(shelf) == {OLD, MIDDLE, NEW}


def test_a_killed_downloads_room_is_free_again(shelf: Shelf) -> None:
    def reserve_and_die() -> None:
        capped(shelf, 4).reserve("e" * 64, SIZE, NOW)
        os.kill(os.getpid(), signal.SIGKILL)

    assert children.end(children.start(reserve_and_die)) == -signal.SIGKILL
    capped(shelf, 4).reserve(WANTED, SIZE, NOW)
    assert there(shelf) == {OLD, MIDDLE, NEW}


def test_what_has_come_of_a_download_needs_no_more_room(shelf: Shelf) -> None:
    with open(shelf.path(WANTED, ".part"), "wb") as part:  # noqa: PTH123 - as above
        part.write(bytes(SIZE // 2))
    capped(shelf, 4).reserve(WANTED, SIZE, NOW)
    assert there(shelf) == {OLD, MIDDLE, NEW}
    assert [size for _, size, _ in shelf.parts()] == [SIZE // 2]


def test_broken_off_downloads_go_before_any_sif(shelf: Shelf) -> None:
    for sha256 in ("e" * 64, "f" * 64):
        shelf.directory("sif", sha256[:2])
        with open(shelf.path(sha256, ".part"), "wb") as part:  # noqa: PTH123 - as above
            part.write(bytes(SIZE // 2))
    with slots.turn([f"{shelf.root}/locks/{'f' * 64}"], NOW):
        capped(shelf, 4.5).reserve(WANTED, SIZE, NOW)
    assert there(shelf) == {OLD, MIDDLE, NEW}
    assert [sha256 for sha256, _, _ in shelf.parts()] == ["f" * 64], "somebody goes on with it"


def test_that_there_was_no_room_is_remembered_for_a_minute(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    small = capped(shelf, 1)
    small.refuse_again(2 * SIZE)
    with pytest.raises(RoomError):
        small.reserve(WANTED, 2 * SIZE, NOW)
    with pytest.raises(RoomError, match=f"there was no room for {2 * SIZE} bytes"):
        small.refuse_again(2 * SIZE)
    small.refuse_again(2 * SIZE - 1)
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    small.refuse_again(2 * SIZE)


def test_it_is_forgotten_when_something_goes(shelf: Shelf) -> None:
    with pytest.raises(RoomError):
        capped(shelf, 1).reserve(WANTED, 2 * SIZE, NOW)
    assert [one.sha256 for one in capped(shelf, 2).keep_limits(NOW)] == [OLD]
    capped(shelf, 1).refuse_again(2 * SIZE)


def test_a_disk_that_is_full_all_the_same_is_relieved_once(shelf: Shelf) -> None:
    pins.pin(shelf.root, OLD, os.getpid())
    assert capped(shelf, 9).make(WANTED, 5 * SIZE, NOW)
    assert there(shelf) == {OLD}
    assert not capped(shelf, 9).make(WANTED, 5 * SIZE, NOW)
    with pytest.raises(RoomError):
        capped(shelf, 9).refuse_again(5 * SIZE)


def test_limits_are_kept_by_removing_the_oldest(shelf: Shelf) -> None:
    assert capped(shelf, 3).keep_limits(NOW) == []
    assert [one.sha256 for one in capped(shelf, 1).keep_limits(NOW)] == [OLD, MIDDLE]
    assert there(shelf) == {NEW}


def test_who_counts_does_so_alone_and_others_wait_for_so_long(shelf: Shelf) -> None:
    with slots.turn([f"{shelf.root}/locks/room"], NOW), pytest.raises(BusyError, match="making room"):
        capped(shelf, 9).reserve(WANTED, SIZE, NOW)


def test_a_sif_that_is_being_checked_stays(shelf: Shelf) -> None:
    with slots.turn([f"{shelf.root}/locks/{OLD}"], NOW):
        assert not room.remove(shelf, OLD)
        capped(shelf, 2).keep_limits(NOW)
    assert OLD in there(shelf)


@pytest.mark.parametrize("event", ["os.listdir", "os.remove"])
def test_a_pin_that_comes_while_a_sif_is_removed_is_seen(shelf: Shelf, event: str) -> None:
    """A job that pins, and then finds it, has it; whatever instant of the removal it comes at."""
    found: list[bool] = []
    used = next(one.used for one in shelf.sifs() if one.sha256 == OLD)

    def hand_out_once(now: str, _: tuple[object, ...]) -> None:
        if now == event and not found:
            found.append(False)
            pins.pin(shelf.root, OLD, os.getpid())
            found[0] = shelf.has(OLD)

    def remove() -> None:
        import sys  # noqa: PLC0415 - an audit hook stays for ever, so this is a child's

        sys.addaudithook(hand_out_once)
        removed = room.remove(shelf, OLD)
        assert len(found) == 1
        assert not (found[0] and removed), "it was handed out and removed"
        assert removed or shelf.has(OLD)
        assert removed or next(one.used for one in shelf.sifs() if one.sha256 == OLD) == pytest.approx(used)

    assert children.end(children.start(remove)) == 0


def test_force_removes_what_jobs_hold(shelf: Shelf) -> None:
    pins.pin(shelf.root, OLD, os.getpid())
    assert not room.remove(shelf, OLD)
    assert OLD in there(shelf)
    assert room.remove(shelf, OLD, even_held=True)
    assert there(shelf) == {MIDDLE, NEW}
    assert not room.remove(shelf, OLD, even_held=True)


def test_a_removal_that_was_killed_is_completed_by_the_next_one(shelf: Shelf) -> None:
    point = 0
    while children.killed(point, lambda: room.remove(shelf, OLD)):
        if shelf.has(OLD):
            assert os.path.getsize(shelf.path(OLD)) == SIZE  # noqa: PTH202 - as above
        room.remove(shelf, OLD)
        assert there(shelf) == {MIDDLE, NEW}
        assert not os.path.lexists(shelf.path(OLD))
        assert not os.path.lexists(shelf.path(OLD, ".seen"))
        put(shelf, OLD)
        point += 1
    assert point >= 3, "a lock, the note, the SIF"
