"""The sandbox of an image: the squashfs of its SIF, unpacked into its published place.

SIF and sandbox have the same tree, because the sandbox is made from the SIF. An ordinary user cannot set owners, setuid bits and
privileged attributes (capabilities), so these are lost. The sandbox has one file more: an empty ``.cvmfscatalog`` in its root,
which makes CVMFS keep the files of the image in a catalog of their own.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.errors import CommandError, RepositoryError, SpaceError
from publisher.sifs.structure import SifError, squashfs_offset
from publisher.state.paths import CATALOG_MARK
from publisher.system import command
from publisher.system.durable import delete, failures
from publisher.system.shield import Shield

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

NO_SHIELD = Shield()
"""Hides nothing."""
_QUEUE = 64  # MiB of each of unsquashfs's two block queues; 256 by default
_FREE = 16 << 20  # bytes that must stay free on the device
_HOST_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_WARNING_STATUS = 2  # unsquashfs(1), EXIT STATUS: it continued after non-fatal errors
_ATTRIBUTE_MESSAGES = ("write_xattr:", "Ignoring xattrs", "To avoid this error message")


def unpack(sif: Path, target: Path, *, deadline: float, size: int = 0, shield: Shield = NO_SHIELD) -> None:
    """Unpack a SIF that this program has made, or has checked.

    Extended attributes are lost on file systems that do not support them; any other loss is an error.

    Args:
        sif: the SIF.
        target: the directory to make, in an existing directory; it is deleted on failure.
        deadline: seconds.
        size: bytes of all files, for a check of the free space before anything is written; 0 if it is not known.
        shield: hides what unsquashfs must not see.

    Raises:
        RepositoryError: the SIF cannot be read, or the target cannot be written, within the deadline.
        SpaceError: no space left at the target.
    """
    with failures(RepositoryError, f"the sandbox {target.name} cannot be written"):
        require_new(target)
        check_space(target, size)
        try:
            _unsquash(sif, target, deadline, shield)
            add_catalog_mark(target)
        except BaseException:
            delete(target)
            raise


def require_new(target: Path) -> None:
    """Raise OSError if something is at a path already."""
    if target.is_symlink() or target.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


def check_space(target: Path, size: int) -> None:
    """Raise SpaceError if there is not enough free space for a sandbox, OSError if that cannot be determined."""
    free = shutil.disk_usage(target.parent).free
    if size and free < size + _FREE:
        raise SpaceError(
            f"no space for a sandbox of {format_size(size)}: {format_size(free)} are free", hint="free space there and run again"
        )


def extract_paths(sif: Path, target: Path, paths: Iterable[bytes], *, deadline: float, shield: Shield = NO_SHIELD) -> None:
    """Unpack some paths of a SIF and the directories above them, whose times are not set; without paths, only the root directory.

    Args:
        sif: the SIF.
        target: the directory to make; a list of the paths is kept beside it meanwhile.
        paths: paths from the root; a directory is unpacked with everything in it. A path must not have a newline, nor begin like
            a comment. Paths that the SIF does not have are skipped.
        deadline: seconds.
        shield: hides what unsquashfs must not see.

    Raises:
        RepositoryError: the SIF cannot be read within the deadline.
        OSError: the target cannot be written.
    """
    path_list = target.with_name(f"{target.name}.list")
    try:
        # The list begins with a name that no image has, because unsquashfs extracts everything for an empty list.
        path_list.write_bytes(b"\n".join([CATALOG_MARK.encode(), *paths, b""]))
        _unsquash(sif, target, deadline, shield, ("-no-wildcards", "-ef", str(path_list)))
    finally:
        path_list.unlink(missing_ok=True)


def copy_root_attributes(target: Path, root: os.stat_result) -> None:
    """Set owner, mode and time of a sandbox's root, and the time of its catalog mark, to those of another root; raise OSError."""
    times = (root.st_mtime_ns, root.st_mtime_ns)
    if os.geteuid() == 0:
        os.chown(target, root.st_uid, root.st_gid)
    target.chmod(stat.S_IMODE(root.st_mode))
    os.utime(target / CATALOG_MARK, ns=times)
    os.utime(target, ns=times)


def _unsquash(sif: Path, target: Path, deadline: float, shield: Shield, options: Sequence[str] = ()) -> None:
    argv = ["unsquashfs", "-dest", str(target), "-offset", str(_offset(sif)), "-no-progress", "-quiet"]
    argv += ["-data-queue", str(_QUEUE), "-frag-queue", str(_QUEUE)]
    argv += ["-xattrs" if os.geteuid() == 0 else "-user-xattrs", *options, str(sif)]
    try:
        # umask: for an ordinary user, unsquashfs leaves the modes to open(2)
        result = command.run(shield.wrap(argv), deadline=deadline, umask=0, accept=(0, _WARNING_STATUS), name=argv[0])
    except CommandError as error:
        raise_host_error(error.stderr)
        raise RepositoryError(f"the sandbox cannot be unpacked from its SIF: {error.reason}", hint=error.hint) from error
    raise_host_error(result.stderr)  # with any status: unsquashfs 4.4 returns 0 after errors, too
    problems = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith(_ATTRIBUTE_MESSAGES)]
    if problems:
        raise RepositoryError(f"the sandbox cannot be unpacked from its SIF: {problems[0]}")


def _offset(sif: Path) -> int:
    """Return where the squashfs of a SIF begins; raise RepositoryError if it is not sound, OSError if it cannot be read."""
    with sif.open("rb") as file:
        try:
            return squashfs_offset(file.fileno())
        except SifError as error:
            raise RepositoryError(f"the sandbox cannot be unpacked from its SIF: {error.reason}", hint=error.hint) from error


def raise_host_error(stderr: str) -> None:
    """Raise OSError if a program reported a full device or quota, or a disk that failed."""
    for code in _HOST_ERRORS:
        if os.strerror(code) in stderr:
            raise OSError(code, os.strerror(code))


def add_catalog_mark(target: Path) -> None:
    """Create the catalog mark, and keep mode and time of the root directory; raise OSError on failure."""
    before = target.lstat()
    target.chmod(stat.S_IMODE(before.st_mode) | 0o700)
    mark = target / CATALOG_MARK
    mark.touch(exist_ok=False)
    mark.chmod(0o644)
    os.utime(mark, ns=(before.st_mtime_ns, before.st_mtime_ns))
    target.chmod(stat.S_IMODE(before.st_mode))
    os.utime(target, ns=(before.st_mtime_ns, before.st_mtime_ns))
