"""A directory of SIFs that have the right bytes, and whether it may be trusted.

A SIF stands at ``sif/<2>/<sha256>.sif``, and is there only whole and verified. Beside it stands its note, ``<sha256>.seen``:
what the file system said of the SIF when its bytes were last checked, and its image's name. While the file that is opened now is
still the same, a hit costs a few calls; else the bytes are hashed again, all through one open file, which must be the one that
the path leads to afterwards: the path is what Apptainer is given. A SIF without a note is not handed out, so whoever removes a
SIF removes the note first. The note's date says when the SIF was last used.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from publisher.resolver.errors import CacheError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20
_NOTE_BYTES = 1000  # more than a note has
_STAMP = 60  # seconds after which a use is worth writing down again
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Shelved:
    """A SIF on the shelf: ``sha256``, ``size`` in bytes, ``used`` (seconds since the epoch), ``name`` (empty: not known)."""

    __slots__ = ("name", "sha256", "size", "used")

    def __init__(self, sha256: str, size: int, used: float, name: str) -> None:
        self.sha256 = sha256
        self.size = size
        self.used = used
        self.name = name


class Shelf:
    """The SIFs below the directory ``root``, which one of the users ``owners`` must own."""

    def __init__(self, root: str, owners: tuple[int, ...]) -> None:
        self.root = root
        self._owners = owners

    def check(self) -> None:
        """See that nobody else can put anything here.

        Raises:
            CacheError: somebody else's, or open to others' writing; with the command that mends it.
            OSError: it cannot be looked at; FileNotFoundError where it is not there.
        """
        entry = os.lstat(self.root)
        status = os.stat(self.root) if stat.S_ISLNK(entry.st_mode) else entry
        for uid in (entry.st_uid, status.st_uid):
            if uid not in self._owners:
                raise CacheError(f"the cache {self.root} belongs to user {uid}", hint="set --cache to one of your own")
        if status.st_mode & _OTHERS:
            raise CacheError(
                f"others may write in the cache {self.root}", hint=f"chmod go-w {self.root}, once you trust what it holds"
            )
        parent = os.path.dirname(self.root)
        above = os.stat(parent)
        others = above.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if above.st_gid not in (0, above.st_uid) else 0))
        if others and not above.st_mode & stat.S_ISVTX:
            raise CacheError(f"others may replace the cache {self.root}", hint=f"chmod +t {parent}, or go-w")

    def path(self, sha256: str, ending: str = ".sif") -> str:
        """Where a SIF is, or its note or the part of it that has come."""
        return os.path.join(self.root, "sif", sha256[:2], f"{sha256}{ending}")

    def has(self, sha256: str) -> bool:
        """Whether a SIF is there, may be read, and nothing has touched it since its bytes were checked."""
        try:
            descriptor = os.open(self.path(sha256), _READ)
            try:
                status = os.fstat(descriptor)
                with open(self.path(sha256, ".seen"), "rb", buffering=0) as note:
                    noted, used = note.read(_NOTE_BYTES), os.fstat(note.fileno()).st_mtime
                right = noted.partition(b"\n")[0] == _identity(status) == _identity(os.lstat(self.path(sha256)))
            finally:
                os.close(descriptor)
        except OSError:
            return False
        if right and abs(time.time() - used) > _STAMP:
            self._stamp(sha256, time.time())
        return right

    def trusts(self, sha256: str) -> bool:
        """Whether what lies between the root and a SIF is the owners' alone too; for a shelf that others filled."""
        try:
            places = [os.lstat(os.path.join(self.root, "sif")), os.lstat(os.path.dirname(self.path(sha256)))]
            places += [os.lstat(self.path(sha256)), os.lstat(self.path(sha256, ".seen"))]
        except OSError:
            return False
        return all(status.st_uid in self._owners and not status.st_mode & _OTHERS for status in places)

    def has_after_all(self, sha256: str, name: str = "") -> bool:
        """Whether the bytes that are there are right: noted then, else removed. The caller holds the SIF's lock.

        Raises:
            OSError: it cannot be read or removed.
        """
        path = self.path(sha256)
        try:
            descriptor = os.open(path, _READ)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            os.unlink(path)  # a link, which is nothing that was put here
            return False
        try:
            before = _identity(os.fstat(descriptor))
            right = _sha256(descriptor) == sha256
            if right and before == _identity(os.fstat(descriptor)) == _identity(os.lstat(path)):
                os.fchmod(descriptor, 0o444)
                self._note(sha256, os.fstat(descriptor), name)
                return True
        finally:
            os.close(descriptor)
        os.unlink(path)
        return False

    def put(self, sha256: str, name: str) -> None:
        """Give the part, whose bytes were checked, the SIF's name; on disk. The caller holds the SIF's lock. Raises OSError."""
        from publisher.resolver import files  # noqa: PLC0415 - a warm answer puts nothing

        path = self.path(sha256)
        os.rename(self.path(sha256, ".part"), path)
        os.chmod(path, 0o444)
        files.sync_directory(os.path.dirname(path))
        self._note(sha256, os.lstat(path), name)

    def hide(self, sha256: str) -> tuple[bytes, float] | None:
        """Remove a SIF's note, so that it is handed out no more; the note for :meth:`show`, None where there was none."""
        path = self.path(sha256, ".seen")
        try:
            with open(path, "rb") as note:
                content, used = note.read(_NOTE_BYTES), os.fstat(note.fileno()).st_mtime
            os.unlink(path)
        except OSError:
            return None
        return content, used

    def show(self, sha256: str, note: tuple[bytes, float] | None) -> None:
        """Undo :meth:`hide`."""
        if note is not None:
            self._write_note(sha256, note[0])
            self._stamp(sha256, note[1])

    def sifs(self) -> Iterator[Shelved]:
        """All SIFs, in no order."""
        for sha256, size, changed in self._files(".sif"):
            name, used = "", changed
            try:
                with open(self.path(sha256, ".seen"), "rb") as note:
                    name = note.read(_NOTE_BYTES).decode("utf-8", "replace").partition("\n")[2].strip()
                    used = os.fstat(note.fileno()).st_mtime
            except OSError:
                pass
            yield Shelved(sha256, size, used, name)

    def parts(self) -> list[tuple[str, int, float]]:
        """Downloads that go on or broke off: sha256, bytes there, when it last grew."""
        return list(self._files(".part"))

    def used(self, sha256: str, when: float) -> None:
        """A SIF was used at a time that is told only now."""
        try:
            if os.stat(self.path(sha256, ".seen")).st_mtime < when:
                self._stamp(sha256, when)
        except OSError:
            pass

    def _files(self, ending: str) -> Iterator[tuple[str, int, float]]:
        for directory, _, names in os.walk(os.path.join(self.root, "sif")):
            for name in names:
                if not name.endswith(ending):
                    continue
                try:
                    status = os.lstat(os.path.join(directory, name))
                except FileNotFoundError:
                    continue
                yield name.removesuffix(ending), status.st_size, status.st_mtime

    def _note(self, sha256: str, status: os.stat_result, name: str) -> None:
        printable = name if name.isprintable() else ""
        self._write_note(sha256, _identity(status) + f"\n{printable[: _NOTE_BYTES // 8]}\n".encode("utf-8", "replace"))

    def _write_note(self, sha256: str, content: bytes) -> None:
        """Without a note the bytes are hashed again, so a note that cannot be written, or half of one, is no failure."""
        try:
            with open(self.path(sha256, ".seen"), "wb") as note:
                note.write(content)
        except OSError:
            pass

    def _stamp(self, sha256: str, when: float) -> None:
        try:  # noqa: SIM105 - contextlib would be one module more in every job
            os.utime(self.path(sha256, ".seen"), (when, when), follow_symlinks=False)
        except OSError:
            pass  # a shelf that others fill, or that is being emptied


def _identity(status: os.stat_result) -> bytes:
    """What changes whenever a file is written to or replaced: nobody can set ctime back."""
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode()


def _sha256(descriptor: int) -> str:
    import hashlib  # noqa: PLC0415 - a hit needs none

    digest = hashlib.sha256()
    while chunk := os.read(descriptor, _CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
