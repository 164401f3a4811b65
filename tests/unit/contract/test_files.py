from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import publisher
from publisher.contract import files
from tests.support.images.trees import private_umask
from tests.support.machine import child_process


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_made_and_replaced_with_nothing_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    for content in (b"1" * 100, b"2", b""):
        files.replace(str(path), content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_without_a_directory_is_one_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.replace("index.json", b"1")
    assert (tmp_path / "index.json").read_bytes() == b"1"


def test_who_has_the_old_file_open_keeps_reading_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    files.replace(str(path), b"old")
    with path.open("rb") as reader:
        files.replace(str(path), b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize("wanted", [0o644, 0o600, 0o666])
def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path: Path, wanted: int) -> None:
    with private_umask():
        files.replace(str(tmp_path / "file"), b"", mode=wanted)
    assert mode(tmp_path / "file") == wanted


def test_a_file_that_cannot_be_put_in_place_leaves_no_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "there/not-empty").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        files.replace(str(tmp_path / "there"), b"")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_missing_directory_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.replace(str(tmp_path / "missing/file"), b"")


def test_a_killed_replacement_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    for point in range(100):
        files.replace(str(path), b"old")
        if not child_process.killed(point, lambda: files.replace(str(path), b"new")):
            break
        assert path.read_bytes() == b"old"
        left = [beside.name for beside in tmp_path.iterdir() if beside != path]
        assert all(name.startswith(".index.json.") for name in left)
        for name in left:
            (tmp_path / name).unlink()
    assert point > 2
    assert path.read_bytes() == b"new"


def test_a_directory_is_synchronised_also_where_the_file_system_has_nothing_to_do(tmp_path: Path) -> None:
    files.sync_directory(str(tmp_path))
    files.sync_directory("/proc")
    with pytest.raises(FileNotFoundError):
        files.sync_directory(str(tmp_path / "missing"))


def test_a_lock_is_held_by_one_and_free_afterwards(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    with files.locked(lock, deadline=0) as descriptor:
        assert os.fstat(descriptor).st_ino == Path(lock).stat().st_ino
        with pytest.raises(TimeoutError, match=lock), files.locked(lock, deadline=0):
            pytest.fail("locked twice")
    with files.locked(lock, deadline=0):
        pass
    assert Path(lock).exists()


def test_a_lock_is_free_after_a_failure(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    with pytest.raises(ValueError, match="inside"), files.locked(lock, deadline=0):
        raise ValueError("inside")
    with files.locked(lock, deadline=0):
        pass


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    (tries, tried), (begin, begun) = os.pipe(), os.pipe()

    def wait() -> None:
        os.read(begin, 1)
        sys.addaudithook(lambda event, _: os.write(tried, b".") if event == "fcntl.flock" else None)
        with files.locked(lock, deadline=60):
            pass

    child = child_process.start(wait)  # before the lock is taken: what is forked while it is held holds it too
    with files.locked(lock, deadline=0):
        os.write(begun, b".")
        for _ in range(2):  # the second try comes after a refusal
            os.read(tries, 1)
    assert child_process.end(child) == 0
    for descriptor in (tries, tried, begin, begun):
        os.close(descriptor)


def test_waiting_for_a_lock_ends_at_the_deadline(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    with files.locked(lock, deadline=0), pytest.raises(TimeoutError), files.locked(lock, deadline=0.1):
        pytest.fail("locked twice")


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")

    def die() -> None:
        with files.locked(lock, deadline=0):
            os.kill(os.getpid(), signal.SIGKILL)

    assert child_process.end(child_process.start(die)) == -signal.SIGKILL
    with files.locked(lock, deadline=0):
        pass


def test_a_program_that_the_holder_starts_does_not_hold_the_lock(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    with files.locked(lock, deadline=0):
        program = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    try:
        with files.locked(lock, deadline=0):
            pass
    finally:
        program.communicate(b"")


def test_a_lock_that_cannot_be_made_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing") as failure, files.locked(str(tmp_path / "missing/lock"), deadline=0):
        pytest.fail("locked")
    assert failure.value.errno == errno.ENOENT


def test_nothing_expensive_is_imported() -> None:
    """This module is loaded in every job on an execution point."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(publisher.__file__).parent.parent)!r}); "
        "import publisher.contract.files; "
        "print(*{'dataclasses', 'logging', 'pathlib', 'random', 'subprocess', 'tempfile', 'typing'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout == "\n"
