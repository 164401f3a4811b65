"""The pipe through which a running ``cvmfs_server ingest`` reads a tar stream.

Programs that the tool starts inherit its end and may keep it open, so that the end of the reader cannot be seen at the pipe: a
write that waits also looks whether the tool has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import termios
import time
from typing import TYPE_CHECKING

from publisher.system.command import enlarge_pipe

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL = 0.005  # seconds between two looks at whether the first bytes were read
_WAIT = 0.5  # seconds between two looks at whether the tool has ended


class ToolEndedError(Exception):
    """The tool has ended before it had read everything."""


class ToolPipe:
    """An open pipe.

    Args:
        has_ended: returns whether the tool has ended.

    Attributes:
        read_end: the descriptor that the tool inherits.
    """

    def __init__(self, has_ended: Callable[[], bool]) -> None:
        self.read_end, self._write_end = os.pipe()
        self._has_ended = has_ended
        self._is_open = True
        enlarge_pipe(self._write_end)
        os.set_blocking(self._write_end, False)

    def close_read_end(self) -> None:
        """Close the tool's end in this process, once the tool has its own."""
        os.close(self.read_end)

    def close(self) -> None:
        """End the stream; nothing if that was done."""
        if self._is_open:
            self._is_open = False
            os.close(self._write_end)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of the bytes.

        Raises:
            ToolEndedError: the tool does not read them any more.
        """
        rest = memoryview(data)
        while rest:
            with contextlib.suppress(BlockingIOError):
                try:
                    rest = rest[os.write(self._write_end, rest) :]
                except BrokenPipeError:
                    raise ToolEndedError from None
                continue
            self._require_tool()
            select.select([], [self._write_end], [], _WAIT)

    def wait_until_read(self) -> None:
        """Wait until the tool has read everything that was written. Raises ToolEndedError."""
        while struct.unpack("i", fcntl.ioctl(self._write_end, termios.FIONREAD, bytes(4)))[0]:
            self._require_tool()
            time.sleep(_POLL)

    def _require_tool(self) -> None:
        if self._has_ended():
            raise ToolEndedError
