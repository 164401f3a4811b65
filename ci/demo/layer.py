"""One layer's archive, entry by entry, the same bytes whenever and wherever it is made."""

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
"""Time of entries made here, seconds; those from packages keep theirs."""
_MERGED = ("bin", "lib", "lib64", "sbin")
"""Directories at the top that Debian has below /usr since version 12."""
_LEFT_OUT = ("usr/share/doc/", "usr/share/info/", "usr/share/lintian/", "usr/share/locale/", "usr/share/man/")


class Layer:
    """Writes a layer; a context manager that ends the archive. A second entry of one name is left out, except a whiteout's.

    Args:
        out: takes the uncompressed archive.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._archive = tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed on exit
        self._seen: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._archive.close()

    def directory(self, name: str, mode: int = 0o755, owner: int = 0) -> None:
        """A directory; its parents come before it by other calls, or from lower layers."""
        self._add(_entry(name, tarfile.DIRTYPE, mode, owner))

    def file(self, name: str, content: bytes | str = b"", mode: int = 0o644, owner: int = 0) -> None:
        """A regular file."""
        data = content.encode() if isinstance(content, str) else content
        entry = _entry(name, tarfile.REGTYPE, mode, owner)
        entry.size = len(data)
        self._add(entry, data)

    def symlink(self, name: str, target: str) -> None:
        """A symbolic link."""
        entry = _entry(name, tarfile.SYMTYPE, 0o777)
        entry.linkname = target
        self._add(entry)

    def hardlink(self, name: str, target: str) -> None:
        """Another name of an entry that this layer has already."""
        entry = _entry(name, tarfile.LNKTYPE, 0o644)
        entry.linkname = target
        self._add(entry)

    def whiteout(self, name: str) -> None:
        """Removes what lower layers have there (OCI image specification, layer.md, "Whiteouts")."""
        above, _, base = name.rpartition("/")
        self.file(f"{above}/.wh.{base}" if above else f".wh.{base}")

    def opaque(self, name: str) -> None:
        """Hides all that lower layers have below the directory."""
        self.directory(name)
        self.file(f"{name}/.wh..wh..opq")

    def packages(self, paths: Iterable[Path], *, documentation: bool = False) -> None:
        """Everything in the packages, unpacked as on a system whose /bin, /lib and /sbin are links into /usr."""
        self.directory("usr")
        for name in _MERGED:
            self.directory(f"usr/{name}")
            self.symlink(name, f"usr/{name}")
        for path in paths:
            for entry, content in debian.contents(path):
                entry.name = _merged(entry.name)
                if entry.islnk():
                    entry.linkname = _merged(entry.linkname)
                if documentation or not f"{entry.name}/".startswith(_LEFT_OUT):
                    self._add(entry, content)

    def _add(self, entry: tarfile.TarInfo, content: bytes = b"") -> None:
        if entry.name not in self._seen:
            self._seen.add(entry.name)
            self._archive.addfile(entry, io.BytesIO(content))


def _entry(name: str, kind: bytes, mode: int, owner: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid, entry.mtime = kind, mode, owner, owner, EPOCH
    return entry


def _merged(name: str) -> str:
    return f"usr/{name}" if name.partition("/")[0] in _MERGED else name
