"""Publish the overlay's upper directory, and count what that costs.

The real program creates a repository revision, which appears at once. The fake changes the published tree in place, in an order
in which everything comes after what it refers to.
"""

from __future__ import annotations

import errno
import os
import stat

from tests.fakes.cvmfs_server.repository import Failure, Repository, mounts, must

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

INDEX = ".publisher/index.json"


def publish(repository: Repository) -> dict[str, int]:
    """Publish, and return the costs of the measured model: entries, bytes, and entries of changed catalogs."""
    store(repository)
    repository.start_revision()
    must("umount", "-l", repository.mount)
    additions, removals = [], []
    size = 0
    for path in filter(repository.takes, walk(repository.upper)):
        status = os.lstat(f"{repository.upper}/{path}")
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            removals.append(path)
        else:
            additions.append((path, status))
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
            if stat.S_ISDIR(status.st_mode) and opaque(f"{repository.upper}/{path}"):
                remove(f"{repository.lower}/{path}")
    directories = [item for item in additions if stat.S_ISDIR(item[1].st_mode)]
    for path, status in directories:
        target = f"{repository.lower}/{path}"
        if not os.path.isdir(target) or os.path.islink(target):
            remove(target)
            os.mkdir(target)
            repeat(target, status)
    for path, _ in sorted((item for item in additions if item not in directories), key=rank):
        target = f"{repository.lower}/{path}"
        if os.path.isdir(target) and not os.path.islink(target):
            remove(target)
        os.rename(f"{repository.upper}/{path}", target)
    for path in sorted(removals, key=lambda path: removal_rank(repository.lower, path)):
        remove(f"{repository.lower}/{path}")
    for path, status in reversed(directories):
        repeat(f"{repository.lower}/{path}", status)
    costs = {
        "entries": len(additions) + len(removals),
        "bytes": size,
        "catalog_entries": catalog_entries(repository.lower, [path for path, _ in additions] + removals),
    }
    empty(repository)
    forget_clone(repository)
    repository.set_revision(repository.revision() + 1)
    return costs


def store(repository: Repository) -> None:
    """Write every new file to the storage, if a test has given it a disk; what does not fit leaves its unfinished chunk."""
    data = f"{repository.srv}/data"
    if not os.path.isdir(data):
        return
    import hashlib  # noqa: PLC0415 - few tests come here
    import shutil  # noqa: PLC0415

    for number, path in enumerate(walk(repository.upper)):
        source, chunk = f"{repository.upper}/{path}", f"{data}/txn/upload.{os.getpid()}.{number}"
        if os.path.isfile(source) and not os.path.islink(source):
            try:
                shutil.copyfile(source, chunk)
            except OSError as error:
                raise Failure(
                    1, f"failed to write to '{chunk}' (errno: {error.errno})\nKilled\nSynchronization failed"
                ) from error
            with open(source, "rb") as file:
                os.rename(chunk, f"{data}/{hashlib.file_digest(file, 'sha1').hexdigest()}")


def clone(repository: Repository, source: str, destination: str) -> None:
    """Clone for ``transaction -T``: the copy is in the published mount at once, but in no revision before the publish."""
    source, destination = source.strip("/"), destination.strip("/")
    lower = repository.lower
    possible = (
        os.path.isdir(f"{lower}/{source}")
        and os.path.isdir(os.path.dirname(f"{lower}/{destination}"))
        and not os.path.lexists(f"{lower}/{destination}")
    )
    if not possible:
        os.unlink(repository.flag)
        raise Failure(errno.EINVAL, f"CernVM-FS transaction error: cannot clone directory tree. '{source}' --> '{destination}'")
    with open(f"{repository.spool}/template", "w", encoding="utf-8") as file:
        file.write(destination)
    must("cp", "-al", f"{lower}/{source}", f"{lower}/{destination}")


def discard(repository: Repository) -> None:
    """Discard the overlay's changes and a clone, as an abort does."""
    cloned = forget_clone(repository)
    if cloned:
        remove(f"{repository.lower}/{cloned}")
    if repository.mount in mounts():
        must("umount", "-l", repository.mount)
    empty(repository)


def forget_clone(repository: Repository) -> str:
    """Remove the record of the transaction's clone and return its path, ``""`` if there was none."""
    try:
        with open(f"{repository.spool}/template", encoding="utf-8") as file:
            path = file.read()
    except FileNotFoundError:
        return ""
    os.unlink(f"{repository.spool}/template")
    return path


def empty(repository: Repository) -> None:
    """Replace the upper directory with an empty one; the mount of the old one may still be in use."""
    for directory in (repository.upper, repository.work):
        remove(directory)
        os.mkdir(directory)


def walk(top: str, below: str = "") -> Iterator[str]:
    """Yield every path below a directory, directories before their content."""
    with os.scandir(f"{top}/{below}") as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        yield f"{below}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from walk(top, f"{below}{entry.name}/")


def rank(item: tuple[str, os.stat_result]) -> tuple[bool, bool, bool]:
    path, status = item
    return (path == INDEX, path.startswith(".publisher/"), stat.S_ISLNK(status.st_mode))


def removal_rank(lower: str, path: str) -> tuple[bool, bool]:
    """Sort names before what they mean: a directory of names may go as a whole."""
    return (path.startswith(".images"), not os.path.islink(f"{lower}/{path}"))


def opaque(directory: str) -> bool:
    try:
        return os.getxattr(directory, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        with os.scandir(path) as entries:
            found = list(entries)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                remove(entry.path)
            else:
                os.unlink(entry.path)
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)


def repeat(target: str, status: os.stat_result) -> None:
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def catalog_entries(lower: str, touched: list[str]) -> int:
    """Return the number of entries of all catalogs from the root to the changed paths: each is read and written as a whole."""
    catalogs = {""}
    for path in touched:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            if os.path.exists(f"{lower}/{above}/.cvmfscatalog"):
                catalogs.add(above)
    return sum(count(f"{lower}/{catalog}") for catalog in catalogs)


def count(directory: str, *, top: bool = True) -> int:
    """Return the number of entries of a catalog; a nested catalog counts as one entry."""
    if not top and os.path.exists(f"{directory}/.cvmfscatalog"):
        return 0
    found = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            found += 1
            if entry.is_dir(follow_symlinks=False):
                found += count(entry.path, top=False)
    return found
