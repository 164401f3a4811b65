"""A directory that hangs, as a mount of CVMFS does at its worst: FUSE, whose process answers nothing any more."""

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


class Mount:
    """A directory's content mounted at its own path; :meth:`hang` and :meth:`go_on` as often as wanted."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def hang(self) -> None:
        """From now on whoever opens something in it waits."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        """Who waits is answered."""
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def mounted(directory: Path, scratch: Path) -> Iterator[Mount]:
    """Mount what is in a directory over it, through squashfuse; ``scratch`` is for the image."""
    with _running(_image(directory, scratch), directory) as process:
        yield Mount(process)


@contextlib.contextmanager
def mounted_beyond_kill(directory: Path, scratch: Path) -> Iterator[Mount]:
    """As :func:`mounted`, but who opens something that nobody read before it hung cannot be killed.

    His request has been taken, by a process that waits itself: its image lies in another mount, which is what hangs. (What a
    stopped process has not taken yet can be taken back.)
    """
    below = scratch / "below"
    below.mkdir()
    image = _image(directory, below)
    with _running(_image(below, scratch), below) as lower, _running(image, directory), contextlib.ExitStack() as stack:
        with image.open("rb") as file:  # the kernel is to ask again
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        mount = Mount(lower)
        stack.callback(mount.go_on)
        yield mount


def _image(directory: Path, scratch: Path) -> Path:
    image = scratch / f"{directory.name}.squashfs"
    subprocess.run(["mksquashfs", directory, image, "-quiet", "-no-progress"], check=True, capture_output=True)
    return image


@contextlib.contextmanager
def _running(image: Path, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    options = "attr_timeout=0,entry_timeout=0"  # nothing is kept by the kernel: every look asks the process
    process = subprocess.Popen(["squashfuse", "-f", "-o", options, image, directory])
    try:
        until = time.monotonic() + _WATCHDOG
        while not os.path.ismount(directory):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        yield process
    finally:
        process.kill()  # whoever waits is told that nobody is there any more
        process.wait()
        subprocess.run(["fusermount3", "-u", "-z", directory], check=False, capture_output=True)
