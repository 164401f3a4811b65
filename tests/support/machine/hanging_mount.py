"""A directory that fails like a broken CVMFS mount: a FUSE mount whose process no longer answers, or that cannot read files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WATCHDOG = 60.0
_SUPERBLOCK_BYTES, _INODE_TABLE_AT = 96, 64
"""The first bytes of a squashfs, and the byte there at which the offset of the inode table stands: the end of all data."""


class Mount:
    """A directory's content mounted over itself; :meth:`hang` and :meth:`go_on` may be called any number of times."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def hang(self) -> None:
        """Make every process wait that opens something in the directory."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        """Let the waiting processes continue."""
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def mounted(directory: Path, scratch: Path) -> Iterator[Mount]:
    """Mount a directory's content over it with squashfuse; the image is written into ``scratch``."""
    with _running(_image(directory, scratch), directory) as process:
        yield Mount(process)


@contextlib.contextmanager
def mounted_beyond_kill(directory: Path, scratch: Path) -> Iterator[Mount]:
    """Like :func:`mounted`, but a process that opens a file that was not read before the hang cannot be killed.

    Its request has been accepted by a FUSE process that waits itself, because its image is in another mount, which hangs. (A
    request that a stopped FUSE process has not accepted yet can be withdrawn.)
    """
    below = scratch / "below"
    below.mkdir()
    image = _image(directory, below)
    with _running(_image(below, scratch), below) as lower, _running(image, directory), contextlib.ExitStack() as stack:
        with image.open("rb") as file:  # drop the kernel's copy
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        mount = Mount(lower)
        stack.callback(mount.go_on)
        yield mount


@contextlib.contextmanager
def half_broken(directory: Path, scratch: Path) -> Iterator[None]:
    """Mount a directory's content over it so that directories open, and every read of a file gives EIO."""
    image = _image(directory, scratch)
    overwrite_data(image)
    with _running(image, directory):
        yield


def overwrite_data(image: Path) -> None:
    """Overwrite the data of all files in a squashfs, up to the tables of inodes and directories."""
    with image.open("r+b") as file:
        end = int.from_bytes(file.read(_INODE_TABLE_AT + 8)[_INODE_TABLE_AT:], "little")
        file.seek(_SUPERBLOCK_BYTES)
        file.write(b"\xff" * (end - _SUPERBLOCK_BYTES))


def _image(directory: Path, scratch: Path) -> Path:
    image = scratch / f"{directory.name}.squashfs"
    subprocess.run(["mksquashfs", directory, image, "-quiet", "-no-progress"], check=True, capture_output=True)
    return image


@contextlib.contextmanager
def _running(image: Path, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    options = "attr_timeout=0,entry_timeout=0"  # the kernel caches nothing: every access asks the process
    process = subprocess.Popen(["squashfuse", "-f", "-o", options, image, directory])
    try:
        until = time.monotonic() + _WATCHDOG
        while not os.path.ismount(directory):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        yield process
    finally:
        process.kill()  # waiting processes get an error
        process.wait()
        subprocess.run(["fusermount3", "-u", "-z", directory], check=False, capture_output=True)
