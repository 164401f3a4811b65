"""The tar archive of one layer, written entry by entry, with the same bytes at any time and place."""

from __future__ import annotations

import io
import tarfile
from typing import IO, TYPE_CHECKING, Self

from ci.demo import debian

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

EPOCH = 1_700_000_000
"""Modification time of entries that are not from packages, seconds since the epoch."""
_MERGED = ("bin", "lib", "lib64", "sbin")
"""Top-level directories that are links into /usr since Debian 12."""
_DOCUMENTATION = ("usr/share/doc/", "usr/share/info/", "usr/share/lintian/", "usr/share/locale/", "usr/share/man/")


class Layer:
    """A writer of a layer, as a context manager that ends the archive. A second entry with the same name is ignored.

    Args:
        out: receives the uncompressed archive.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._archive = tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed on exit
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._archive.close()

    def directory(self, name: str, mode: int = 0o755, owner: int = 0) -> None:
        """Add a directory; its parents must be added before, or be in lower layers."""
        self._add(_entry(name, tarfile.DIRTYPE, mode, owner))

    def file(self, name: str, content: bytes | str = b"", mode: int = 0o644, owner: int = 0) -> None:
        """Add a regular file."""
        data = content.encode() if isinstance(content, str) else content
        entry = _entry(name, tarfile.REGTYPE, mode, owner)
        entry.size = len(data)
        self._add(entry, data)

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        entry = _entry(name, tarfile.SYMTYPE, 0o777)
        entry.linkname = target
        self._add(entry)

    def hardlink(self, name: str, target: str) -> None:
        """Add a hard link to an entry of this layer."""
        entry = _entry(name, tarfile.LNKTYPE, 0o644)
        entry.linkname = target
        self._add(entry)

    def whiteout(self, name: str) -> None:
        """Add a whiteout, which removes a path of lower layers (OCI image specification, layer.md, "Whiteouts")."""
        parent, _, base = name.rpartition("/")
        self.file(f"{parent}/.wh.{base}" if parent else f".wh.{base}")

    def opaque(self, name: str) -> None:
        """Add an opaque directory, which hides everything that lower layers have in it."""
        self.directory(name)
        self.file(f"{name}/.wh..wh..opq")

    def packages(self, paths: Iterable[Path], *, documentation: bool = False) -> None:
        """Add all files of packages, as on a system where /bin, /lib and /sbin are links into /usr.

        Args:
            paths: the packages.
            documentation: include documentation and translations.
        """
        self.directory("usr")
        for name in _MERGED:
            self.directory(f"usr/{name}")
            self.symlink(name, f"usr/{name}")
        for path in paths:
            for entry, content in debian.contents(path):
                entry.name = _merged(entry.name)
                if entry.islnk():
                    entry.linkname = _merged(entry.linkname)
                if documentation or not f"{entry.name}/".startswith(_DOCUMENTATION):
                    self._add(entry, content)

    def _add(self, entry: tarfile.TarInfo, content: bytes = b"") -> None:
        if entry.name not in self._names:
            self._names.add(entry.name)
            self._archive.addfile(entry, io.BytesIO(content))


def _entry(name: str, kind: bytes, mode: int, owner: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid, entry.mtime = kind, mode, owner, owner, EPOCH
    return entry


def _merged(name: str) -> str:
    return f"usr/{name}" if name.partition("/")[0] in _MERGED else name
