"""From the tar stream to a squashfs: mksquashfs, with options for everything that would otherwise depend on time or host.

On hosts where mksquashfs cannot read tar streams (older than 4.5), tar2sqfs of squashfs-tools-ng reads the same stream. The
options are those of ``mksquashfs(1)`` and ``tar2sqfs(1)``; their behaviour was tried with 4.5.1 and 1.2.0 (docs/design.md).
"""

from __future__ import annotations

import contextlib
import os
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from publisher.build.squash.linked import library_path, library_version
from publisher.errors import BuildError, CommandError
from publisher.layers.emit import Output
from publisher.layers.header import make_header
from publisher.system import command
from publisher.system.durable import failures, program_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from publisher.build.squash.source import SquashSource
    from publisher.layers.survey import StreamSurvey
    from publisher.system.command import UnixAccount

    Write = Callable[[memoryview | bytes], object]

LEVELS = {"zstd": 3, "gzip": 6}
"""The level of each compression where none is given (docs/sif-sizes.md)."""
_LIBRARIES = {"zstd": ("zstd", "libzstd"), "gzip": ("zlib", "libz")}  # compression -> library, and its file's name
_FIRST_WITH_TAR = (4, 5)


class Squasher(ABC):
    """Makes a squashfs of an image; one version of it makes the same bytes of the same image.

    Attributes:
        name: name of the program.
        version: version of the program.
        versions: versions of the programs and libraries that decide about the bytes.
        compression: ``zstd`` or ``gzip``, and the level if it is not the usual one: ``zstd 19``.
        copies: number of copies of the squashfs that are on the disk at the same time.
        others: squashers to which it leaves some images.
    """

    name: str
    version: str
    versions: Mapping[str, str]
    compression: str
    copies = 1
    others: tuple[Squasher, ...] = ()

    @abstractmethod
    def squash(self, out: Path, source: SquashSource, *, offset: int, deadline: float) -> Mapping[str, str]:
        """Make a squashfs of all entries of an image; return those of ``versions`` that made it.

        Args:
            out: the file to make; it must not exist.
            source: the entries.
            offset: bytes to leave free in front of the squashfs.
            deadline: seconds from start to end.

        Raises:
            BuildError: the program failed, or the deadline has passed.
            SpaceError: no space left.
            BrokenHostError: the disk failed.
            LayerError: a layer differs from its index.
            OSError: a layer cannot be read, or the file index cannot be written.
        """


class ProgramSquasher(Squasher):
    """A program that makes a squashfs from a tar stream.

    Attributes:
        library: path of the library that compresses, as the program is linked with it; None if that is not known.
    """

    library: str | None

    def squash(self, out: Path, source: SquashSource, *, offset: int, deadline: float) -> Mapping[str, str]:
        """See :meth:`Squasher.squash`."""
        with self.stream(out, source.totals, offset=offset, deadline=deadline) as stream:
            source.write_stream(stream)
        return self.versions

    @abstractmethod
    def stream(
        self, out: Path, totals: StreamSurvey, *, offset: int, deadline: float
    ) -> contextlib.AbstractContextManager[Output]:
        """Yield where a tar stream is to be written; the file is complete when the block ends.

        Args:
            out: the file to make; it must not exist.
            totals: the totals of the stream.
            offset: bytes to leave free in front of the squashfs.
            deadline: seconds from start to end.

        Raises:
            BuildError: the program failed or exceeded its deadline.
            SpaceError: no space left.
            BrokenHostError: the disk failed.
        """


class Mksquashfs(ProgramSquasher):
    """mksquashfs of squashfs-tools 4.5 or newer.

    It looks for each name among all names of its directory: 20,000 of them in one directory took 1.5 s, 40,000 took 6 s.

    Args:
        compression: ``zstd`` or ``gzip``.
        memory: MiB that it may use for its caches.
        level: level of the compression, None for the usual one.
        account: the account that it runs as (needs root), None for this process's.

    Raises:
        PublisherError: mksquashfs is missing or too old.
    """

    name = "mksquashfs"

    def __init__(
        self, compression: str = "zstd", memory: int = 128, *, level: int | None = None, account: UnixAccount | None = None
    ) -> None:
        self._account = account
        self._compressor = compression
        self._level = level or LEVELS[compression]
        self._memory = memory
        self.compression = _describe(compression, self._level)
        self.version = _mksquashfs_version()
        self.library, self.versions = _linked(self.name, self.version, compression)

    @contextlib.contextmanager
    def stream(self, out: Path, totals: StreamSurvey, *, offset: int, deadline: float) -> Iterator[Output]:
        """See :meth:`ProgramSquasher.stream`."""
        argv = options(self._compressor, self._level, offset=offset, memory=self._memory)
        mode, uid, gid = totals.root
        argv += ["-root-mode", f"{mode:o}", "-root-uid", str(uid), "-root-gid", str(gid)]
        # Sets the times of the root directory and of the file system; -root-time is ignored with -tar.
        env = {"SOURCE_DATE_EPOCH": str(totals.newest)}
        with _lent(out, self._account) as (path, descriptors):
            program = [*_as_user_zero(self._account), "mksquashfs", "-", path]
            with _run([*program, *argv], deadline, env, out, self.name, account=self._account, descriptors=descriptors) as stream:
                yield stream


def options(compression: str, level: int | None = None, *, offset: int, memory: int = 128) -> list[str]:
    """Return mksquashfs's options for a tar stream, but for those of the root directory; ``memory`` is MiB."""
    argv = ["-tar", "-noappend", "-offset", str(offset), "-mem", f"{memory}M", "-comp", compression]
    argv += ["-Xcompression-level", str(level or LEVELS[compression]), "-no-progress", "-quiet", "-no-recovery"]
    return [*argv, "-no-duplicates"]  # its search for duplicates has a race: other bytes, or a lost block


class Tar2sqfs(ProgramSquasher):
    """tar2sqfs of squashfs-tools-ng 1.2; it cannot leave space in front of the squashfs, so its file is copied into place.

    It always compares files of the same size with each other: 40,000 of them took 5 s, 80,000 took 27 s.

    Args:
        compression: ``zstd`` or ``gzip``.
        level: level of the compression, None for the usual one.
        account: the account that it runs as (needs root), None for this process's.

    Raises:
        CommandError: tar2sqfs is missing.
    """

    name = "tar2sqfs"
    copies = 2

    def __init__(self, compression: str = "zstd", *, level: int | None = None, account: UnixAccount | None = None) -> None:
        self._account = account
        self._compressor = compression
        self._level = level or LEVELS[compression]
        self.compression = _describe(compression, self._level)
        words = command.run(["tar2sqfs", "--version"], deadline=20).stdout.decode("utf-8", "replace").split()
        self.version = next((word for word in words if word[:1].isdigit()), "unknown")
        self.library, self.versions = _linked(self.name, self.version, compression)

    @contextlib.contextmanager
    def stream(self, out: Path, totals: StreamSurvey, *, offset: int, deadline: float) -> Iterator[Output]:
        """See :meth:`ProgramSquasher.stream`."""
        temporary = out.with_name(f".{out.name}.{self.name}")
        level = f"level={self._level}"
        argv = ["tar2sqfs", "--quiet", "--no-skip", "--compressor", self._compressor, "--comp-extra", level, "--force"]
        env = {"SOURCE_DATE_EPOCH": str(totals.newest)}
        try:
            with (
                _lent(temporary, self._account) as (path, descriptors),
                _run([*argv, path], deadline, env, out, self.name, account=self._account, descriptors=descriptors) as stream,
            ):
                mode, uid, gid = totals.root
                stream.write(make_header(b"./", b"5", mode=mode, uid=uid, gid=gid, mtime=totals.newest))
                yield stream
            with failures(BuildError, "cannot copy the squashfs into the SIF"):
                _copy(temporary, out, offset)
        finally:
            temporary.unlink(missing_ok=True)


def _linked(program: str, version: str, compression: str) -> tuple[str | None, dict[str, str]]:
    """Return the library that a program compresses with, None if it is not known, and the versions of both."""
    library, name = _LIBRARIES[compression]
    path = library_path(program, name)
    return path, {program: version, library: library_version(path)}


def _describe(compression: str, level: int) -> str:
    """Return what the manifest says of the compression; as before, the usual level is not mentioned."""
    return compression if level == LEVELS[compression] else f"{compression} {level}"


@contextlib.contextmanager
def _lent(out: Path, account: UnixAccount | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the path of a file that a program makes, and the descriptors that it has to inherit for that.

    An account gets an empty file that belongs to it during the block; it needs no way into the directory. Raises OSError.
    """
    if account is None:
        yield str(out), ()
        return
    descriptor = os.open(out, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(descriptor, account.uid, account.gid)
        yield f"/dev/fd/{descriptor}", (descriptor,)
        os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o644)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _run(
    argv: list[str],
    deadline: float,
    env: Mapping[str, str],
    out: Path,
    name: str,
    *,
    account: UnixAccount | None,
    descriptors: tuple[int, ...],
) -> Iterator[Output]:
    try:
        with command.feed(
            argv, deadline=deadline, env=env, cwd=out.parent, name=name, account=account, pass_fds=descriptors
        ) as stdin:
            command.enlarge_pipe(stdin.fileno())
            yield Output(_writer(stdin.fileno()), stdin.fileno())
    except CommandError as error:
        raise program_failure(error, "the SIF") or BuildError(error.reason, hint=error.hint) from error


def _copy(squashfs: Path, out: Path, offset: int) -> None:
    """Copy a file to an offset in a new file, within the kernel; raise OSError on failure."""
    with squashfs.open("rb") as source, out.open("xb") as target:
        target.seek(offset)
        while os.copy_file_range(source.fileno(), target.fileno(), 1 << 30):
            pass


def _as_user_zero(account: UnixAccount | None) -> list[str]:
    """Return a command prefix that runs mksquashfs as user 0, because it writes its user's ids into the table of ids."""
    return [] if os.geteuid() == 0 and account is None else ["unshare", "--map-root-user"]


def _writer(descriptor: int) -> Write:
    """Return a function that writes all of its bytes, where write(2) on a pipe may write only some."""

    def write(data: memoryview | bytes) -> None:
        written = os.write(descriptor, data)
        if written < len(data):
            rest = memoryview(data)[written:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]

    return write


def _mksquashfs_version() -> str:
    output = command.run(["mksquashfs", "-version"], deadline=20, accept=(0, 1)).stdout.decode("utf-8", "replace")
    match = re.search(r"version (\d+)\.(\d+)([.\w-]*)", output)
    if match is None or (int(match[1]), int(match[2])) < _FIRST_WITH_TAR:
        version = match[0].removeprefix("version ") if match else "of an unknown version"
        raise BuildError(
            f"mksquashfs {version} cannot read tar streams; version 4.5 is the first that can",
            hint="install squashfs-tools 4.5, or tar2sqfs of squashfs-tools-ng",
        )
    return match[0].removeprefix("version ")
