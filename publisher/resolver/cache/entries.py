"""Where SIFs stand on this host's disk, and how one of them is known to be whole.

``sif/<2>/<sha256>.sif`` is there only whole and verified. Beside it stands ``<sha256>.seen``: what the file system said of the
SIF when its bytes were last checked. While it says the same of the file that is open, a hit costs a few calls; else its bytes are
hashed again. The note's time is when the SIF was last asked for. ``<sha256>.part`` is a download; who makes or removes any of
them holds the flock(2) of ``locks/<sha256>``.
"""

from __future__ import annotations

import hashlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

_CHUNK = 1 << 20
_NOTE_BYTES = 200  # more than a note has
_SIF, _PART, _SEEN = ".sif", ".part", ".seen"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class CacheEntry:
    """A SIF on the shelf: ``size`` in bytes, ``used`` the time it was last asked for, seconds since the epoch."""

    __slots__ = ("sha256", "size", "used")

    def __init__(self, sha256: str, size: int, used: float) -> None:
        self.sha256 = sha256
        self.size = size
        self.used = used


class CacheEntries:
    """The SIFs below the directory ``root``. With ``shared``, everybody may read them."""

    def __init__(self, root: str, *, shared: bool = False) -> None:
        self.root = root
        self._mode = 0o755 if shared else 0o700

    def path(self, sha256: str) -> str:
        """Of the SIF."""
        return self._named(sha256, _SIF)

    def part(self, sha256: str) -> str:
        """Of its download."""
        return self._named(sha256, _PART)

    def lock(self, sha256: str) -> str:
        """Of its lock."""
        return os.path.join(self.root, "locks", sha256)

    def make(self, sha256: str) -> None:
        """Make the directories that it needs. Raises OSError."""
        for directory in ("locks", "sif", os.path.join("sif", sha256[:2])):
            path = os.path.join(self.root, directory)
            if not os.path.isdir(path):
                os.makedirs(path, exist_ok=True)
                os.chmod(path, self._mode)

    def is_seen(self, sha256: str) -> bool:
        """Whether the SIF is there and nothing has touched it since its bytes were checked."""
        try:
            descriptor = os.open(self.path(sha256), _READ)
        except OSError:
            return False
        try:
            with open(self._named(sha256, _SEEN), "rb", buffering=0) as note:
                return note.read(_NOTE_BYTES) == _identity(descriptor)
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def is_right(self, sha256: str) -> bool:
        """Whether the SIF's bytes are right after all, by reading them: noted then, else removed. The caller holds its lock.

        Raises:
            OSError: it cannot be read or removed.
        """
        try:
            descriptor = os.open(self.path(sha256), _READ)
        except FileNotFoundError:
            return False
        except OSError:  # a link: no SIF of ours
            self._drop(sha256)
            return False
        with open(descriptor, "rb", buffering=0) as file:
            before = _identity(descriptor)
            right = _sha256(file) == sha256 and _identity(descriptor) == before
        if right:
            self._note(sha256, before)
        else:
            self._drop(sha256)
        return right

    def put(self, sha256: str) -> None:
        """Make the verified download the SIF. The caller holds its lock. Raises OSError."""
        from publisher.contract import files  # noqa: PLC0415 - a warm answer puts nothing

        path = self.path(sha256)
        os.rename(self.part(sha256), path)
        os.chmod(path, 0o444)
        files.sync_directory(os.path.dirname(path))
        descriptor = os.open(path, _READ)
        try:
            self._note(sha256, _identity(descriptor))
        finally:
            os.close(descriptor)

    def use(self, sha256: str, when: float | None = None) -> None:
        """Remember, where we may write, that it was last asked for now, or at another time: seconds since the epoch."""
        try:  # noqa: SIM105 - contextlib costs a warm answer a millisecond
            os.utime(self._named(sha256, _SEEN), None if when is None else (when, when))
        except OSError:
            pass

    def was_used(self, sha256: str, when: float) -> None:
        """It was asked for at a time that we are told only now: jobs cannot write it down in a store."""
        if (self._used(sha256) or when) < when:
            self.use(sha256, when)

    def unsee(self, sha256: str) -> bytes | None:
        """Take the note away: from now on nobody is handed the SIF without its lock. What :meth:`see` needs. Raises OSError."""
        path = self._named(sha256, _SEEN)
        try:
            with open(path, "rb") as file:
                note = file.read(_NOTE_BYTES)
            os.unlink(path)
        except FileNotFoundError:
            return None
        return note

    def see(self, sha256: str, note: bytes | None) -> None:
        """Put the note back: the SIF has not been touched."""
        if note is not None:
            self._note(sha256, note)

    def remove(self, sha256: str) -> None:
        """Remove the SIF and its note. The caller holds its lock. Raises OSError."""
        self.unsee(sha256)
        self._drop(sha256)

    def items(self) -> list[CacheEntry]:
        """The SIFs that stand here, the one that was asked for longest ago first. Raises OSError."""
        found = []
        for sha256, path in self._all(_SIF):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            found.append(CacheEntry(sha256, status.st_size, self._used(sha256) or status.st_mtime))
        return sorted(found, key=lambda item: item.used)

    def parts(self) -> list[tuple[str, str]]:
        """sha256 and path of the downloads, running or broken off. Raises OSError."""
        return list(self._all(_PART))

    def _all(self, ending: str) -> Iterator[tuple[str, str]]:
        top = os.path.join(self.root, "sif")
        for directory in _names(top):
            for name in _names(os.path.join(top, directory)):
                if name.endswith(ending):
                    yield name[: -len(ending)], os.path.join(top, directory, name)

    def _named(self, sha256: str, ending: str) -> str:
        return os.path.join(self.root, "sif", sha256[:2], f"{sha256}{ending}")

    def _used(self, sha256: str) -> float | None:
        """The note's time; None without one: such a SIF is hashed again before its next use."""
        try:
            return os.lstat(self._named(sha256, _SEEN)).st_mtime
        except FileNotFoundError:
            return None

    def _note(self, sha256: str, identity: bytes) -> None:
        """Write down what the file system says of a SIF with the right bytes; without the note they are hashed again."""
        try:
            with open(self._named(sha256, _SEEN), "wb") as note:
                note.write(identity)
                os.fchmod(note.fileno(), 0o644)
        except OSError:
            pass

    def _drop(self, sha256: str) -> None:
        try:  # noqa: SIM105 - contextlib costs a warm answer a millisecond
            os.unlink(self.path(sha256))
        except FileNotFoundError:
            pass


def _identity(descriptor: int) -> bytes:
    """What changes whenever a file is written to or replaced: nobody can set ctime back. Raises OSError."""
    found = os.fstat(descriptor)
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}\n".encode()


def _sha256(file: FileIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
