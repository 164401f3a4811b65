"""From the tar stream to a squashfs: mksquashfs, told everything that would otherwise depend on the day or the machine.

Flags and traps: ``mksquashfs(1)``, and what was tried with 4.5.1 (docs/design.md, "Squash").
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from publisher import command
from publisher.errors import BuildError, CommandError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from publisher.layers.survey import Survey

    Write = Callable[[memoryview | bytes], object]

_PIPE = 1 << 20  # bytes; the kernel's default of 64 KiB makes both ends wait for each other
_MOST_ALIKE = 5_000  # mksquashfs compares files of one size with each other: 80,000 took 96 s, without comparing 0.6 s
_LEVELS = {"zstd": ("-Xcompression-level", "3"), "gzip": ("-Xcompression-level", "6")}
_FIRST_WITH_TAR = (4, 5)


class Squasher(ABC):
    """Makes a squashfs of a tar stream. The same stream gives the same bytes."""

    name: str
    version: str

    @abstractmethod
    def squash(self, out: Path, totals: Survey, *, offset: int, deadline: float) -> contextlib.AbstractContextManager[Write]:
        """Yields the function that takes the stream; the file is complete when the block ends.

        Args:
            out: a file not yet there.
            totals: what the stream will hold.
            offset: bytes to leave free in front.
            deadline: seconds from start to end.

        Raises:
            BuildError: the program failed or ran into its deadline.
            SpaceError: no room left.
        """


class Mksquashfs(Squasher):
    """squashfs-tools 4.5 or newer.

    Args:
        compression: ``zstd`` or ``gzip``.
        memory: what it may use for its caches, MiB.
    """

    name = "mksquashfs"

    def __init__(self, compression: str = "zstd", memory: int = 128) -> None:
        self._compression = compression
        self._memory = memory
        self.version = _version()

    @contextlib.contextmanager
    def squash(self, out: Path, totals: Survey, *, offset: int, deadline: float) -> Iterator[Write]:
        """See :meth:`Squasher.squash`."""
        argv = [*_seen_as_root(), "mksquashfs", "-", str(out), "-tar", "-offset", str(offset), "-mem", f"{self._memory}M"]
        argv += ["-comp", self._compression, *_LEVELS[self._compression], "-no-progress", "-quiet", "-no-recovery"]
        mode, uid, gid = totals.root
        argv += ["-root-mode", f"{mode:o}", "-root-uid", str(uid), "-root-gid", str(gid)]
        argv.append("-no-duplicates")  # its search for duplicates races with its writers: other bytes, or a block lost
        # The root directory's time and the file system's follow from this; -root-time is ignored with -tar.
        env = {"SOURCE_DATE_EPOCH": str(totals.newest)}
        try:
            with command.feed(argv, deadline=deadline, env=env, cwd=out.parent, name=self.name) as stdin:
                with contextlib.suppress(OSError):  # more than an ordinary user may have: then the default
                    fcntl.fcntl(stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
                yield _writer(stdin.fileno())
        except CommandError as error:
            if os.strerror(errno.ENOSPC) in error.stderr:
                raise SpaceError("no room left for the SIF", hint="free space in --state, or give another one") from error
            raise BuildError(error.reason, hint=error.hint) from error


def _seen_as_root() -> list[str]:
    """Mksquashfs puts the ids of who runs it into the file's table of ids, needed or not: let everybody be 0 to it."""
    return [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]


def _writer(descriptor: int) -> Write:
    """A write that takes all of its bytes: a pipe's own may stop early."""

    def write(data: memoryview | bytes) -> None:
        written = os.write(descriptor, data)
        if written < len(data):
            rest = memoryview(data)[written:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]

    return write


def _version() -> str:
    said = command.run(["mksquashfs", "-version"], deadline=20, accept=(0, 1)).stdout.decode("utf-8", "replace")
    found = re.search(r"version (\d+)\.(\d+)([.\w-]*)", said)
    if found is None or (int(found[1]), int(found[2])) < _FIRST_WITH_TAR:
        words = found[0] if found else "of an unknown version"
        raise BuildError(f"mksquashfs is {words}: reading tar streams came with 4.5", hint="install squashfs-tools 4.5 or newer")
    return found[0].removeprefix("version ")
