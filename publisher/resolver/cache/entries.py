"""The cache entries on disk, and how an entry is known to be intact.

``sif/<2>/<sha256>.sif`` exists only complete and verified. Beside it, ``<sha256>.seen`` is the verification note: the inode,
size and times of the SIF when its bytes were last hashed, and when that was. While the open file still has the same ones, a hit
costs a few system calls; otherwise the bytes are hashed again. The modification time of the note is when the entry was last
used. ``<sha256>.part`` is a download, and ``<sha256>.chunks`` the chunk table of a SIF that is there or comes. Whoever creates
or removes any of them holds the flock(2) of ``locks/<sha256>``.

A sandbox that was unpacked from a SIF is an entry as well, under the key ``<sha256>-unpacked`` in place of the sha256: the
directory ``sif/<2>/<key>`` exists only complete. Its note also has the bytes that it takes on disk and a digest of the whole
tree.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

_CHUNK = 1 << 20
_MAX_NOTE_BYTES = 200
_SIF, _PART, _NOTE, _TABLE = ".sif", ".part", ".seen", ".chunks"
_UNPACKED = "-unpacked"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def unpacked_key(sha256: str) -> str:
    """Return the key of the sandbox that is unpacked from a SIF."""
    return f"{sha256}{_UNPACKED}"


def is_unpacked(key: str) -> bool:
    """Return whether a key is that of an unpacked sandbox."""
    return key.endswith(_UNPACKED)


class CacheEntry:
    """A SIF or an unpacked sandbox in the cache.

    Attributes:
        sha256: of its content, 64 hexadecimal digits; of an unpacked sandbox its key.
        size: bytes.
        last_used: when it was last requested, seconds since the epoch.
    """

    __slots__ = ("last_used", "sha256", "size")

    def __init__(self, sha256: str, size: int, last_used: float) -> None:
        self.sha256 = sha256
        self.size = size
        self.last_used = last_used


class CacheEntries:
    """The entries of the cache in the directory ``root``. With ``shared``, its directories are readable by everybody."""

    def __init__(self, root: str, *, shared: bool = False) -> None:
        self.root = root
        self._mode = 0o755 if shared else 0o700

    def sif_path(self, sha256: str) -> str:
        """Return the path of a SIF or an unpacked sandbox, whether it exists or not."""
        return self._path(sha256, "" if is_unpacked(sha256) else _SIF)

    def part_path(self, sha256: str) -> str:
        """Return the path of the unfinished download of a SIF."""
        return self._path(sha256, _PART)

    def table_path(self, sha256: str) -> str:
        """Return the path of the chunk table of a SIF, whether it exists or not."""
        return self._path(sha256, _TABLE)

    def lock_path(self, sha256: str) -> str:
        """Return the path of the lock file of a SIF."""
        return os.path.join(self.root, "locks", sha256)

    def make_directories(self, sha256: str) -> None:
        """Create the directories that the entry needs. Raise OSError if that fails."""
        for directory in ("locks", "sif", os.path.join("sif", sha256[:2])):
            path = os.path.join(self.root, directory)
            if not os.path.isdir(path):
                os.makedirs(path, exist_ok=True)
                os.chmod(path, self._mode)

    def is_verified(self, sha256: str) -> bool:
        """Return whether the SIF exists and its file has not changed since its bytes were hashed."""
        try:
            descriptor = os.open(self.sif_path(sha256), _READ)
        except OSError:
            return False
        try:
            with open(self._path(sha256, _NOTE), "rb", buffering=0) as note:
                return (note.read(_MAX_NOTE_BYTES) or b"").startswith(_file_identity(descriptor))
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def verify(self, sha256: str) -> bool:
        """Hash the SIF; write its note if the bytes are right, else remove the SIF. The caller holds its lock.

        Returns:
            Whether the bytes are right; False if there is no SIF.

        Raises:
            OSError: the SIF cannot be read or removed.
        """
        if is_unpacked(sha256):
            return self._verify_tree(sha256)
        try:
            descriptor = os.open(self.sif_path(sha256), _READ)
        except FileNotFoundError:
            return False
        except OSError:  # a symbolic link, which this program never creates
            self._unlink_sif(sha256)
            return False
        with open(descriptor, "rb", buffering=0) as file:
            before = _file_identity(descriptor)
            is_right = _hash(file) == sha256 and _file_identity(descriptor) == before
        if is_right:
            self._write_note(sha256, before + _hashed_now())
        else:
            self._unlink_sif(sha256)
        return is_right

    def add_download(self, sha256: str) -> None:
        """Turn the verified download into the SIF. The caller holds its lock. Raise OSError if that fails."""
        from publisher.contract import files  # noqa: PLC0415 - a warm answer adds nothing

        path = self.sif_path(sha256)
        os.rename(self.part_path(sha256), path)
        os.chmod(path, 0o444)
        files.sync_directory(os.path.dirname(path))
        descriptor = os.open(path, _READ)
        try:
            self._write_note(sha256, _file_identity(descriptor) + _hashed_now())
        finally:
            os.close(descriptor)

    def add_tree(self, key: str, tree: str, digest: str) -> None:
        """Turn a complete directory into the unpacked sandbox. The caller holds its lock. Raise OSError if that fails."""
        from publisher.contract import files  # noqa: PLC0415 - as above
        from publisher.resolver.cache import trees  # noqa: PLC0415 - as above

        path = self.sif_path(key)
        size = trees.size_on_disk(tree)
        self.remove(key)
        os.rename(tree, path)
        files.sync_directory(os.path.dirname(path))
        self._write_note(key, _path_identity(path) + b"%d %s\n" % (size, digest.encode()) + _hashed_now())

    def remove_download(self, sha256: str) -> None:
        """Remove what an interrupted download or unpacking left. The caller holds its lock. Raise OSError if that fails."""
        from publisher.resolver.cache import trees  # noqa: PLC0415 - as above

        trees.remove(self.part_path(sha256))

    def mark_used(self, sha256: str, when: float | None = None) -> None:
        """Set the time of last use to ``when`` (seconds since the epoch) or to now; do nothing without write permission."""
        try:  # noqa: SIM105 - contextlib costs a warm answer a millisecond
            os.utime(self._path(sha256, _NOTE), None if when is None else (when, when))
        except OSError:
            pass

    def last_hashed(self, sha256: str) -> int:
        """Return when the bytes of an entry were last hashed, seconds since the epoch; 0 if that is unknown."""
        try:
            with open(self._path(sha256, _NOTE), "rb") as note:
                return int(note.read(_MAX_NOTE_BYTES).splitlines()[-1])
        except (OSError, ValueError, IndexError):
            return 0

    def record_use(self, sha256: str, when: float) -> None:
        """Advance the time of last use to ``when``, for a use that the job could not record: a job cannot write in a store."""
        if (self._last_used(sha256) or when) < when:
            self.mark_used(sha256, when)

    def invalidate(self, sha256: str) -> bytes | None:
        """Remove the verification note, so that no process hands out the SIF without its lock.

        Returns:
            The note for :meth:`mark_verified`, or None if there was none.

        Raises:
            OSError: the note cannot be read or removed.
        """
        path = self._path(sha256, _NOTE)
        try:
            with open(path, "rb") as file:
                note = file.read(_MAX_NOTE_BYTES)
            os.unlink(path)
        except FileNotFoundError:
            return None
        return note

    def mark_verified(self, sha256: str, note: bytes | None) -> None:
        """Restore the note that :meth:`invalidate` returned, since the SIF was not changed."""
        if note is not None:
            self._write_note(sha256, note)

    def remove(self, sha256: str) -> None:
        """Remove the SIF, its note and its chunk table. The caller holds its lock. Raise OSError if that fails."""
        self.invalidate(sha256)
        self._unlink_sif(sha256)
        self.remove_table(sha256)

    def remove_table(self, sha256: str) -> None:
        """Remove the chunk table of a SIF, if it has one. The caller holds its lock. Raise OSError if that fails."""
        try:  # noqa: SIM105 - as everywhere here
            os.unlink(self.table_path(sha256))
        except FileNotFoundError:
            pass

    def tables(self) -> list[tuple[str, str]]:
        """Return ``(sha256, path)`` of each chunk table. Raise OSError if that fails."""
        return list(self._scan(_TABLE))

    def by_last_use(self) -> list[CacheEntry]:
        """Return all entries, the least recently used first. Raise OSError if the cache cannot be read."""
        found = []
        for sha256, path in (*self._scan(_SIF), *self._scan(_UNPACKED)):
            key = sha256 if path.endswith(_SIF) else unpacked_key(sha256)
            try:
                status = os.lstat(path)
                size = self._tree_size(key) if is_unpacked(key) else status.st_size
            except FileNotFoundError:
                continue
            found.append(CacheEntry(key, size, self._last_used(key) or status.st_mtime))
        return sorted(found, key=lambda entry: entry.last_used)

    def downloads(self) -> list[tuple[str, str]]:
        """Return ``(sha256, path)`` of each unfinished download, running or interrupted. Raise OSError if that fails."""
        return list(self._scan(_PART))

    def _scan(self, suffix: str) -> Iterator[tuple[str, str]]:
        top = os.path.join(self.root, "sif")
        for directory in _list_directory(top):
            for name in _list_directory(os.path.join(top, directory)):
                if name.endswith(suffix):
                    yield name[: -len(suffix)], os.path.join(top, directory, name)

    def _path(self, sha256: str, suffix: str) -> str:
        return os.path.join(self.root, "sif", sha256[:2], f"{sha256}{suffix}")

    def _verify_tree(self, key: str) -> bool:
        """Hash an unpacked sandbox and compare it with its note; remove it if it differs, or has no note. Raise OSError."""
        from publisher.resolver.cache import trees  # noqa: PLC0415 - no warm answer does this

        path, words = self.sif_path(key), self._tree_note(key)
        if not os.path.isdir(path) or os.path.islink(path):
            self.remove(key)
            return False
        if words is not None and trees.digest(path) == words[1]:
            self._write_note(key, _path_identity(path) + b"%d %s\n" % (words[0], words[1].encode()) + _hashed_now())
            return True
        self.remove(key)
        return False

    def _tree_note(self, key: str) -> tuple[int, str] | None:
        """Return the bytes on disk and the digest in the note of an unpacked sandbox; None without a complete note."""
        try:
            with open(self._path(key, _NOTE), "rb") as note:
                size, digest = note.read(_MAX_NOTE_BYTES).split(b"\n")[1].split()
            return int(size), digest.decode()
        except (OSError, ValueError, IndexError):
            return None

    def _tree_size(self, key: str) -> int:
        """Return the bytes that an unpacked sandbox takes on disk."""
        from publisher.resolver.cache import trees  # noqa: PLC0415 - as above

        note = self._tree_note(key)
        return trees.size_on_disk(self.sif_path(key)) if note is None else note[0]

    def _last_used(self, sha256: str) -> float | None:
        """Return the modification time of the note, or None without one: such a SIF is hashed before its next use."""
        try:
            return os.lstat(self._path(sha256, _NOTE)).st_mtime
        except FileNotFoundError:
            return None

    def _write_note(self, sha256: str, identity: bytes) -> None:
        """Write the verification note of a SIF with the right bytes; without it the SIF is hashed before its next use."""
        try:
            with open(self._path(sha256, _NOTE), "wb") as note:
                note.write(identity)
                os.fchmod(note.fileno(), 0o644)
        except OSError:
            pass

    def _unlink_sif(self, sha256: str) -> None:
        if is_unpacked(sha256):
            self._remove_tree(sha256)
            return
        try:  # noqa: SIM105 - contextlib costs a warm answer a millisecond
            os.unlink(self.sif_path(sha256))
        except FileNotFoundError:
            pass

    def _remove_tree(self, key: str) -> None:
        """Remove an unpacked sandbox: first its name, so that it is complete or absent."""
        from publisher.resolver.cache import trees  # noqa: PLC0415 - as above

        path, dead = self.sif_path(key), f"{self.part_path(key)}/{os.urandom(8).hex()}"
        if os.path.lexists(path):
            os.makedirs(os.path.dirname(dead), mode=0o700, exist_ok=True)
            os.rename(path, dead)
            trees.remove(dead)
            try:  # noqa: SIM105 - as everywhere here
                os.rmdir(os.path.dirname(dead))
            except OSError:  # an unpacking is in it
                pass


def _hashed_now() -> bytes:
    """Return the last line of a note: when the bytes were hashed."""
    import time  # noqa: PLC0415 - a hit writes no note

    return b"%d\n" % time.time()


def _path_identity(path: str) -> bytes:
    descriptor = os.open(path, _READ)
    try:
        return _file_identity(descriptor)
    finally:
        os.close(descriptor)


def _file_identity(descriptor: int) -> bytes:
    """Return what changes whenever a file is written to or replaced: no user can set ctime back. Raise OSError if that fails."""
    status = os.fstat(descriptor)
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode()


def _hash(file: FileIO) -> str:
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, and a warm answer hashes no file

    digest = hashlib.sha256()
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # the disk is checked, and not what the kernel remembers of it
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _list_directory(path: str) -> list[str]:
    """Return the names in a directory, or none if it does not exist."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
