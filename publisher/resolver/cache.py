"""SIFs on this host's disk, fetched once however many jobs want them.

A SIF stands at ``sif/<2>/<sha256>.sif``, and is there only whole and verified. Who fetches it holds the flock(2) of
``locks/<sha256>``, writes ``sif/<2>/<sha256>.part`` beside it, and renames. Beside each SIF stands ``<sha256>.seen``: what the
file system said of the SIF when its bytes were last checked. While it still says the same, a hit costs two calls; else the
bytes are hashed again.

Trust: this finds what disks, crashes and accidents do. Who runs as the same user can rewrite the SIF and that note; so there is
one cache for each user, and a directory that others may write, or that somebody other than this user or root owns, is refused.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time

from publisher.resolver.errors import CacheError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.resolver.manifest import Sif
    from publisher.resolver.sources import Source

_CHUNK = 1 << 20
_LEFT_BEHIND = 3600  # seconds that a broken-off download is kept to be continued
_NOTE_BYTES = 200  # more than a note has


class Cache:
    """The cache in the directory ``root``, which is made (mode 0700) when it is needed; ``user`` or root must own it."""

    def __init__(self, root: str, user: int | None = None) -> None:
        self.root = root
        self._user = os.geteuid() if user is None else user

    def prepare(self) -> None:
        """Make the directory, or see that it is safe.

        Raises:
            CacheError: somebody else's, open to others' writing, or not to be made.
        """
        try:
            os.makedirs(self.root, mode=0o700, exist_ok=True)
            status = os.stat(self.root)
        except OSError as error:
            raise CacheError(f"cannot make the cache {self.root}: {error.strerror}") from None
        if status.st_uid not in (self._user, 0):
            raise CacheError(f"the cache {self.root} belongs to user {status.st_uid}", hint="set --cache to one of your own")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CacheError(
                f"others may write in the cache {self.root}", hint=f"chmod go-w {self.root}, once you trust what it holds"
            )

    def sif(self, sif: Sif, places: Sequence[Source], patience: float | None = None) -> tuple[str, str]:
        """The path of a SIF in the cache, and the place it was fetched from just now: empty where it was there.

        Args:
            sif: which one.
            places: where it is fetched from.
            patience: seconds to wait for another process that fetches it; as long as a download may take when None.

        Raises:
            CacheError: an unusable cache, no room, or another process fetches this SIF and does not come to an end.
            FetchError: no place has the right bytes.
        """
        self.prepare()
        path = self._path(sif, ".sif")
        if self._is_seen(sif):
            return path, ""
        from publisher.resolver import fetch, files  # noqa: PLC0415 - a warm answer needs neither

        try:
            with files.locked(self._lock(sif.sha256), fetch.allowance(sif.size) if patience is None else patience):
                if self._is_seen(sif) or self._is_right(sif):
                    return path, ""
                self._sweep()
                part = self._path(sif, ".part")
                came_from = fetch.fetch(places, sif, part)
                os.rename(part, path)
                os.chmod(path, 0o444)
                files.sync_directory(os.path.dirname(path))
                self._note(sif)
                return path, came_from
        except TimeoutError:
            raise CacheError(f"another process has been fetching {path} for too long") from None
        except OSError as error:
            raise CacheError(f"the cache {self.root} cannot be used: {error}") from None

    def _path(self, sif: Sif, ending: str) -> str:
        return os.path.join(self.root, "sif", sif.sha256[:2], f"{sif.sha256}{ending}")

    def _lock(self, sha256: str) -> str:
        """The lock's path; makes the directories that a fetch needs. Raises OSError."""
        for directory in ("locks", os.path.join("sif", sha256[:2])):
            os.makedirs(os.path.join(self.root, directory), mode=0o700, exist_ok=True)
        return os.path.join(self.root, "locks", sha256)

    def _is_seen(self, sif: Sif) -> bool:
        """Whether the SIF is there and nothing has touched it since its bytes were checked."""
        try:
            with open(self._path(sif, ".seen"), "rb") as note:
                return note.read(_NOTE_BYTES) == _identity(self._path(sif, ".sif"))
        except OSError:
            return False

    def _is_right(self, sif: Sif) -> bool:
        """Whether the SIF's bytes are right after all: noted then, else removed. Raises OSError."""
        path = self._path(sif, ".sif")
        digest = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except FileNotFoundError:
            return False
        if digest.hexdigest() != sif.sha256:
            os.unlink(path)
            return False
        self._note(sif)
        return True

    def _note(self, sif: Sif) -> None:
        """Write down what the file system says of a SIF with the right bytes; without the note they are hashed again."""
        try:
            identity = _identity(self._path(sif, ".sif"))
            with open(self._path(sif, ".seen"), "wb") as note:
                note.write(identity)
        except OSError:
            pass

    def _sweep(self) -> None:
        """Remove what killed processes left: downloads that nobody continues and nobody holds, halves of replaced files."""
        from publisher.resolver import files  # noqa: PLC0415 - see sif()

        for directory, name in _files_below(self.root):
            path = os.path.join(directory, name)
            digest, part, _ = name.partition(".part")
            if not (part or name.startswith(".")) or not _is_old(path):
                continue
            try:
                with files.locked(self._lock(digest) if part else path, 0):
                    os.unlink(path)
            except (TimeoutError, FileNotFoundError):
                continue


def _identity(path: str) -> bytes:
    """What changes whenever a file is written to or replaced: nobody can set ctime back. Raises OSError."""
    found = os.stat(path, follow_symlinks=False)
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}\n".encode()


def _files_below(root: str) -> list[tuple[str, str]]:
    return [(directory, name) for directory, _, names in os.walk(root) for name in names]


def _is_old(path: str) -> bool:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime < time.time() - _LEFT_BEHIND
    except FileNotFoundError:
        return False
