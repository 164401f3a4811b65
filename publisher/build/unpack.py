"""The sandbox of an image: the squashfs of its SIF unpacked straight to where it is published.

Both forms show one tree, because one is made of the other. What an ordinary user may not give away stays behind for one:
owners, setuid bits and privileged attributes (capabilities). One name more than in the SIF: the empty ``.cvmfscatalog`` in
the root, by which CVMFS keeps the image's files in a catalog of their own.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import TYPE_CHECKING

from publisher.build.sif import DATA_OFFSET
from publisher.errors import CommandError, RepositoryError, SpaceError
from publisher.system import command
from publisher.system.durable import delete, failures

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

CATALOG = ".cvmfscatalog"
_QUEUE = 64  # MiB, each of the two queues of blocks; 256 by default
_FREE = 16 << 20  # bytes that must stay free on the device
_FULL = (errno.ENOSPC, errno.EDQUOT)
_WARNINGS = 2  # unsquashfs(1), EXIT STATUS: it went on after errors that it takes for harmless
_ABOUT_ATTRIBUTES = ("write_xattr:", "Ignoring xattrs", "To avoid this error message")


def unpack(sif: Path, target: Path, *, deadline: float, size: int = 0) -> None:
    """Unpack a SIF of this program's making.

    Attributes are lost where the file system has none; nothing else may be.

    Args:
        sif: the SIF.
        target: a directory not yet there, whose parent is; nothing is left of it on failure.
        deadline: seconds.
        size: bytes of all its files; nothing is begun where there is no room for them. 0 where that is not known.

    Raises:
        RepositoryError: the SIF cannot be read, or the target not be written, within the deadline.
        SpaceError: no room left at the target.
    """
    with failures(RepositoryError, f"the sandbox {target.name} cannot be written"):
        if target.is_symlink() or target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        _check_room(target, size)
        try:
            _unsquash(sif, target, deadline)
            _add_catalog(target)
        except BaseException:
            delete(target)
            raise


def _check_room(target: Path, size: int) -> None:
    """Raises OSError."""
    free = shutil.disk_usage(target.parent).free
    if size and free < size + _FREE:
        raise SpaceError(f"no room for a sandbox of {size} bytes: {free} bytes are free", hint="make room there and run again")


def extract(sif: Path, target: Path, paths: Iterable[bytes], *, deadline: float) -> None:
    """Unpack some paths of a SIF, with the directories above them, whose times are not set; without any paths, the bare root.

    Args:
        sif: the SIF.
        target: a directory not yet there; the list of paths is kept beside it meanwhile.
        paths: from the root, of directories with all that is in them; none that does not fit in a line, or looks like a comment.
        deadline: seconds.

    Raises:
        RepositoryError, OSError: as :func:`unpack`, except that a path which is not there is passed over.
    """
    wanted = target.with_name(f"{target.name}.list")
    try:
        # A name that no image has goes in front: without any, unsquashfs takes all there are.
        wanted.write_bytes(b"\n".join([CATALOG.encode(), *paths, b""]))
        _unsquash(sif, target, deadline, ("-no-wildcards", "-ef", str(wanted)))
    finally:
        wanted.unlink(missing_ok=True)


def finish_root(target: Path, root: os.stat_result) -> None:
    """Give the root of a sandbox, and its catalog's marker, what the root of another has. Raises OSError."""
    times = (root.st_mtime_ns, root.st_mtime_ns)
    if os.geteuid() == 0:
        os.chown(target, root.st_uid, root.st_gid)
    target.chmod(stat.S_IMODE(root.st_mode))
    os.utime(target / CATALOG, ns=times)
    os.utime(target, ns=times)


def _unsquash(sif: Path, target: Path, deadline: float, chosen: Sequence[str] = ()) -> None:
    argv = ["unsquashfs", "-dest", str(target), "-offset", str(DATA_OFFSET), "-no-progress", "-quiet"]
    argv += ["-data-queue", str(_QUEUE), "-frag-queue", str(_QUEUE)]
    argv += ["-xattrs" if os.geteuid() == 0 else "-user-xattrs", *chosen, str(sif)]
    try:
        # umask: as an ordinary user it sets no modes, but leaves them to open(2)
        done = command.run(argv, deadline=deadline, umask=0, accept=(0, _WARNINGS))
    except CommandError as error:
        _raise_if_full(error.stderr)
        raise RepositoryError(f"the sandbox cannot be unpacked from its SIF: {error.reason}", hint=error.hint) from error
    _raise_if_full(done.stderr)  # whatever the status: unsquashfs 4.4 has 0 after errors too
    wrong = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(_ABOUT_ATTRIBUTES)]
    if wrong:
        raise RepositoryError(f"the sandbox cannot be unpacked from its SIF: {wrong[0]}")


def _raise_if_full(stderr: str) -> None:
    """Raises OSError where unsquashfs met a full device or quota."""
    for code in _FULL:
        if os.strerror(code) in stderr:
            raise OSError(code, os.strerror(code))


def _add_catalog(target: Path) -> None:
    """The marker file; the root directory keeps its mode and time. Raises OSError."""
    before = target.lstat()
    target.chmod(stat.S_IMODE(before.st_mode) | 0o700)
    marker = target / CATALOG
    marker.touch(exist_ok=False)
    marker.chmod(0o644)
    os.utime(marker, ns=(before.st_mtime_ns, before.st_mtime_ns))
    target.chmod(stat.S_IMODE(before.st_mode))
    os.utime(target, ns=(before.st_mtime_ns, before.st_mtime_ns))
