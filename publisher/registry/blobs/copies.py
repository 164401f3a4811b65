"""Uncompressed copies of layers, written by a fetch while there is room; :mod:`publisher.layers.stream.uncompressed` reads them.

They are in a tmpfs: on a disk, writing 1 GB of them takes longer than decompressing a layer again where the kernel lets few pages
wait to be written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.layers.stream.uncompressed import copy_path
from publisher.system.memory import available_memory
from publisher.system.ownership import is_own

if TYPE_CHECKING:
    from collections.abc import Callable

_TMPFS = Path("/dev/shm")  # noqa: S108 - the directory below it is this account's alone
_SHARE = 4  # of the available memory, for all copies together
_PORTION = 16 << 20  # bytes of room that a copy takes at a time


class CopyRoom:
    """The room that all uncompressed copies of a store may take together.

    A copy that was deleted, by whichever process, gives its room back.

    Args:
        directory: the directory of the copies; it is made, for this account alone, when the first one is written.
        limit: returns how many bytes all copies may have now.
    """

    def __init__(self, directory: Path, limit: Callable[[], int]) -> None:
        self.directory = directory
        self._limit = limit
        self._taken: dict[Path, int] = {}
        self._lock = threading.Lock()

    def prepare(self) -> bool:
        """Make the directory; return False if it belongs to another account, or cannot be made."""
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
            status = self.directory.lstat()
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) and is_own(status)

    def take(self, copy: Path, size: int) -> bool:
        """Give ``size`` more bytes to a copy that is being written; return False if there is no room for them."""
        with self._lock:
            self._taken = {path: taken for path, taken in self._taken.items() if path == copy or path.exists()}
            if sum(self._taken.values()) + size > self._limit():
                return False
            self._taken[copy] = self._taken.get(copy, 0) + size
            return True

    def rename(self, copy: Path, target: Path) -> None:
        """Rename a copy, which keeps its room. Raises OSError."""
        with self._lock:
            copy.replace(target)
            self._taken[target] = self._taken.pop(copy, 0)

    def clear(self) -> None:
        """Delete all copies, those of killed processes too, and the directory unless another process uses it. Raises OSError."""
        if self.directory.exists() and self.prepare():
            for copy in self.directory.iterdir():
                copy.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.directory.rmdir()


def memory_room(state: Path, tmpfs: Path = _TMPFS) -> CopyRoom:
    """Return the room for the copies of a state directory in this host's memory: a quarter of what is available."""
    directory = tmpfs / f"publisher-{os.geteuid()}-{hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:16]}"
    return CopyRoom(directory, lambda: min(available_memory() // _SHARE, shutil.disk_usage(tmpfs).free // 2))


class CopyWriter:
    """A writer of one uncompressed copy. Where there is no room for it there is no copy.

    Args:
        blob: the layer, at its final place.
        room: the room that the copy takes.
    """

    def __init__(self, blob: Path, room: CopyRoom) -> None:
        self._target = copy_path(room.directory, blob)
        self._room = room
        self._free = 0
        self._descriptor: int | None = None
        if room.prepare():
            with contextlib.suppress(OSError):
                self._descriptor, path = tempfile.mkstemp(prefix=".", dir=room.directory)
                self._path = Path(path)

    def write(self, data: bytes) -> None:
        """Append to the copy, unless it was given up."""
        if self._descriptor is None:
            return
        if self._free < len(data):
            portion = max(_PORTION, len(data))
            if not self._room.take(self._path, portion):
                self.give_up()
                return
            self._free += portion
        self._free -= len(data)
        try:
            written = os.write(self._descriptor, data)
        except OSError:  # most often no space left
            written = -1
        if written < len(data):
            self.give_up()

    def finish(self) -> None:
        """Give the complete copy its name, if there is one."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            self._room.rename(self._path, self._target)
            os.close(self._descriptor)
            self._descriptor = None

    def give_up(self) -> None:
        """Delete the copy, unless it is finished; later writes do nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self._path.unlink(missing_ok=True)
