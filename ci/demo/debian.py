"""Debian packages, downloaded from this machine's apt sources for any architecture, without a change of its package state.

apt runs with its own directories and an empty list of installed packages. So it resolves all dependencies, works for other
architectures, needs no root, and does not change what the machine's apt and dpkg know.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import CommandError, UsageError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ARCHITECTURES = ("amd64", "arm64")
_UPDATE_DEADLINE, _DOWNLOAD_DEADLINE = 300, 1800  # seconds
_COMPLETE = "complete"  # marks a directory whose download is complete


def cache_directories(environment: Mapping[str, str]) -> list[Path]:
    """Return the directories for downloads: the cache of ci/install-system if it is writable, else the user's cache before it."""
    shared = Path(environment.get("OSPOOL_PACKAGE_CACHE", "/var/cache/ospool-image-publisher"))
    own = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ospool-image-publisher"
    return [directory / "demo" for directory in ([shared] if os.access(shared, os.W_OK) else [own, shared])]


class Packages:
    """Debian packages, which are downloaded once.

    Args:
        caches: directories with earlier downloads; new ones go into the first, which is created if it is missing.
        options: further options for apt-get, such as other sources.
    """

    def __init__(self, caches: Sequence[Path], options: Sequence[str] = ()) -> None:
        self._caches = tuple(caches)
        self._cache = caches[0]
        self._options = tuple(options)
        self._updated = False

    def fetch(self, names: Sequence[str], architecture: str) -> list[Path]:
        """Return the paths of the packages and of all their dependencies, sorted by file name.

        Raises:
            UsageError: the packages are not in the cache, and this machine's sources do not have them or cannot be reached.
        """
        key = hashlib.sha256(" ".join([architecture, *sorted(names)]).encode()).hexdigest()[:16]
        directories = [cache / "packages" / f"{architecture}-{key}" for cache in self._caches]
        directory = next((path for path in directories if (path / _COMPLETE).exists()), directories[0])
        if not (directory / _COMPLETE).exists():
            self._download(names, architecture, directory)
        return sorted(directory.glob("*.deb"))

    def _download(self, names: Sequence[str], architecture: str, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "partial").mkdir(parents=True)
        qualified = [f"{name}:{architecture}" for name in names]
        try:
            self._update()
            install = ["--download-only", "--yes", "install", *qualified]
            self._apt("-o", f"Dir::Cache::archives={directory}", *install, deadline=_DOWNLOAD_DEADLINE)
        except CommandError as error:
            raise UsageError(
                f"apt could not download {' '.join(qualified)}: {error.reason}",
                hint="the images are made from Debian packages: the first run needs apt sources that have amd64 and arm64",
            ) from error
        if not all(any(directory.glob(f"{name}_*.deb")) for name in names):
            raise UsageError(f"apt did not copy {' '.join(qualified)}", hint="replace file: by copy: in its sources")
        (directory / _COMPLETE).touch()

    def _update(self) -> None:
        if not self._updated:
            (self._cache / "apt" / "lists" / "partial").mkdir(parents=True, exist_ok=True)
            (self._cache / "apt" / "status").touch()
            self._apt("update", deadline=_UPDATE_DEADLINE)
            self._updated = True

    def _apt(self, *arguments: str, deadline: float) -> None:
        state = self._cache / "apt"
        options = [f"Dir::State={state}", f"Dir::State::lists={state / 'lists'}", f"Dir::State::status={state / 'status'}"]
        options += [f"Dir::Cache={state}", "APT::Sandbox::User=root", "APT::Install-Recommends=false", "Acquire::Languages=none"]
        options += [f"APT::Architectures::={architecture}" for architecture in ARCHITECTURES]
        options += ["APT::Keep-Downloaded-Packages=true", *self._options]
        pairs = [word for option in options for word in ("-o", option)]
        command.run(["apt-get", "-qq", *pairs, *arguments], deadline=deadline)


def contents(package: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield the files of a package with their contents: names without a leading ``./``, owners and times as packaged."""
    archive = command.run(["dpkg-deb", "--fsys-tarfile", str(package)], deadline=300).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            content = b""
            if member.isreg():
                opened = members.extractfile(member)
                content = b"" if opened is None else opened.read()
            member.name = member.name.removeprefix("./").rstrip("/")
            if member.islnk():
                member.linkname = member.linkname.removeprefix("./")
            if member.name not in ("", "."):
                yield member, content
