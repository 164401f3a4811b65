"""From the tar stream to a squashfs: mksquashfs, told everything that would otherwise depend on the day or the machine.

Where the host has a mksquashfs that reads no tar streams (older than 4.5), tar2sqfs of squashfs-tools-ng takes the same stream.
Flags and traps: ``mksquashfs(1)``, ``tar2sqfs(1)``, and what was tried with 4.5.1 and 1.2.0 (docs/design.md, "Squash").
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from publisher.errors import BuildError, CommandError, PublisherError, SpaceError
from publisher.layers.header import make_header
from publisher.system import command
from publisher.system.durable import failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from publisher.layers.survey import StreamSurvey

    Write = Callable[[memoryview | bytes], object]

_PIPE = 1 << 20  # bytes; the kernel's default of 64 KiB makes both ends wait for each other
_LEVELS = {"zstd": ("-Xcompression-level", "3"), "gzip": ("-Xcompression-level", "6")}
_FIRST_WITH_TAR = (4, 5)


class Squasher(ABC):
    """Makes a squashfs of a tar stream. The same stream gives the same bytes, from the same program in the same version.

    Attributes:
        name: of the program.
        version: of the program.
        compression: ``zstd`` or ``gzip``.
        copies: files of the squashfs' size that are on the disk at a time.
    """

    name: str
    version: str
    compression: str
    copies = 1

    @abstractmethod
    def squash(
        self, out: Path, totals: StreamSurvey, *, offset: int, deadline: float
    ) -> contextlib.AbstractContextManager[Write]:
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
        self.compression = compression
        self._memory = memory
        self.version = _version()

    @contextlib.contextmanager
    def squash(self, out: Path, totals: StreamSurvey, *, offset: int, deadline: float) -> Iterator[Write]:
        """See :meth:`Squasher.squash`."""
        argv = [*_seen_as_root(), "mksquashfs", "-", str(out), "-tar", "-offset", str(offset), "-mem", f"{self._memory}M"]
        argv += ["-comp", self.compression, *_LEVELS[self.compression], "-no-progress", "-quiet", "-no-recovery"]
        mode, uid, gid = totals.root
        argv += ["-root-mode", f"{mode:o}", "-root-uid", str(uid), "-root-gid", str(gid)]
        argv.append("-no-duplicates")  # its search for duplicates races with its writers: other bytes, or a block lost
        # The root directory's time and the file system's follow from this; -root-time is ignored with -tar.
        env = {"SOURCE_DATE_EPOCH": str(totals.newest)}
        with _fed(argv, deadline, env, out, self.name) as write:
            yield write


class Tar2sqfs(Squasher):
    """squashfs-tools-ng 1.2. It leaves no room in front and writes to files alone: its file is copied to where it belongs.

    It compares files of one size with each other, and cannot be told otherwise: 40,000 took 5 s, 80,000 took 27 s.

    Args:
        compression: ``zstd`` or ``gzip``.
    """

    name = "tar2sqfs"
    copies = 2

    def __init__(self, compression: str = "zstd") -> None:
        self.compression = compression
        said = command.run(["tar2sqfs", "--version"], deadline=20).stdout.decode("utf-8", "replace").split()
        self.version = next((word for word in said if word[:1].isdigit()), "unknown")

    @contextlib.contextmanager
    def squash(self, out: Path, totals: StreamSurvey, *, offset: int, deadline: float) -> Iterator[Write]:
        """See :meth:`Squasher.squash`."""
        made = out.with_name(f".{out.name}.{self.name}")
        level = f"level={_LEVELS[self.compression][1]}"
        argv = ["tar2sqfs", "--quiet", "--no-skip", "--compressor", self.compression, "--comp-extra", level, str(made)]
        try:
            with _fed(argv, deadline, {"SOURCE_DATE_EPOCH": str(totals.newest)}, out, self.name) as write:
                mode, uid, gid = totals.root
                write(make_header(b"./", b"5", mode=mode, uid=uid, gid=gid, mtime=totals.newest))
                yield write
            with failures(BuildError, "the squashfs cannot be copied to its place"):
                _copy(made, out, offset)
        finally:
            made.unlink(missing_ok=True)


def squasher(compression: str = "zstd", memory: int = 128) -> Squasher:
    """What this host can make a squashfs with: mksquashfs, or tar2sqfs where that one is missing or too old.

    Raises:
        PublisherError: neither is here.
    """
    try:
        return Mksquashfs(compression, memory)
    except PublisherError as error:
        try:
            return Tar2sqfs(compression)
        except CommandError:
            raise error from None


@contextlib.contextmanager
def _fed(argv: list[str], deadline: float, env: Mapping[str, str], out: Path, name: str) -> Iterator[Write]:
    try:
        with command.feed(argv, deadline=deadline, env=env, cwd=out.parent, name=name) as stdin:
            with contextlib.suppress(OSError):  # more than an ordinary user may have: then the default
                fcntl.fcntl(stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
            yield _writer(stdin.fileno())
    except CommandError as error:
        if os.strerror(errno.ENOSPC) in error.stderr:
            raise SpaceError("no room left for the SIF", hint="free space in --state, or give another one") from error
        raise BuildError(error.reason, hint=error.hint) from error


def _copy(made: Path, out: Path, offset: int) -> None:
    """Copy a file to ``offset`` bytes into a new one, within the kernel. Raises OSError."""
    with made.open("rb") as source, out.open("xb") as target:
        target.seek(offset)
        while os.copy_file_range(source.fileno(), target.fileno(), 1 << 30):
            pass


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
        raise BuildError(
            f"mksquashfs is {words}: reading tar streams came with 4.5",
            hint="install squashfs-tools 4.5, or tar2sqfs of squashfs-tools-ng",
        )
    return found[0].removeprefix("version ")
