"""Debian's packages, downloaded with this machine's own sources, for whatever architecture, without touching its package state.

apt works in directories of its own with a list of installed packages that is empty: so it answers with a whole closure, for other
architectures too, and neither needs root nor changes what the machine's apt and dpkg know.
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
_COMPLETE = "complete"  # a directory that has it needs no network


def cache_directories(environment: Mapping[str, str]) -> list[Path]:
    """Where downloads are kept: beside those of ci/install-system, and in the user's own cache where that one is closed to us."""
    shared = Path(environment.get("OSPOOL_PACKAGE_CACHE", "/var/cache/ospool-image-publisher"))
    own = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ospool-image-publisher"
    return [directory / "demo" for directory in ([shared] if os.access(shared, os.W_OK) else [own, shared])]


class Packages:
    """Downloads packages once.

    Args:
        caches: directories with earlier downloads; the first one takes new ones, and is made when missing.
        options: more options for apt-get, such as other sources.
    """

    def __init__(self, caches: Sequence[Path], options: Sequence[str] = ()) -> None:
        self._caches = tuple(caches)
        self._cache = caches[0]
        self._options = tuple(options)
        self._updated = False

    def fetch(self, names: Sequence[str], architecture: str) -> list[Path]:
        """The packages and all they depend on, sorted by file name.

        Raises:
            UsageError: this machine's sources do not have them, or cannot be reached and they are not in the cache.
        """
        key = hashlib.sha256(" ".join([architecture, *sorted(names)]).encode()).hexdigest()[:16]
        places = [cache / "packages" / f"{architecture}-{key}" for cache in self._caches]
        directory = next((place for place in places if (place / _COMPLETE).exists()), places[0])
        if not (directory / _COMPLETE).exists():
            self._download(names, architecture, directory)
        return sorted(directory.glob("*.deb"))

    def _download(self, names: Sequence[str], architecture: str, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "partial").mkdir(parents=True)
        wanted = [f"{name}:{architecture}" for name in names]
        try:
            self._update()
            install = ["--download-only", "--yes", "install", *wanted]
            self._apt("-o", f"Dir::Cache::archives={directory}", *install, deadline=_DOWNLOAD_DEADLINE)
        except CommandError as error:
            raise UsageError(
                f"apt could not download {' '.join(wanted)}: {error.reason}",
                hint="the images are made from Debian's packages: the first run needs this machine's apt sources, with deb lines "
                "that serve amd64 and arm64",
            ) from error
        if not all(any(directory.glob(f"{name}_*.deb")) for name in names):
            raise UsageError(f"apt left no copy of {' '.join(wanted)}", hint="in its sources write copy: instead of file:")
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
    """A package's files, as they would be unpacked: names without a leading ``./``, owners and times as packaged."""
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
