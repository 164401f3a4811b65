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
    image = scratch / f"{directory.name}.squashfs"
    subprocess.run(["mksquashfs", directory, image, "-quiet", "-no-progress"], check=True, capture_output=True)
    options = "attr_timeout=0,entry_timeout=0"  # nothing is kept by the kernel: every look asks the process
    process = subprocess.Popen(["squashfuse", "-f", "-o", options, image, directory])
    try:
        until = time.monotonic() + _WATCHDOG
        while not os.path.ismount(directory):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        yield Mount(process)
    finally:
        process.kill()  # whoever waits is told that nobody is there any more
        process.wait()
        subprocess.run(["fusermount3", "-u", "-z", directory], check=False, capture_output=True)
