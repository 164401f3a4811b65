"""What the publisher host keeps of a repository: where it stands, and what its files say of transactions."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import RepositoryError
from publisher.targets.repositories.cvmfs.server import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator

_SETTING = re.compile(r"""\s*(CVMFS_[A-Z0-9_]+)=(["']?)(.*?)\2\s*""", re.ASCII)
_POLL = 0.1  # seconds


@dataclass(frozen=True)
class HostPaths:
    """The directories of all repositories of a host; others than these only in tests."""

    mounts: Path = Path("/cvmfs")
    spool: Path = Path("/var/spool/cvmfs")
    configuration: Path = Path("/etc/cvmfs/repositories.d")


class CvmfsHost:
    """The files of one repository.

    Attributes:
        mount: where it is written while a transaction is open.
        published: the mount that shows what is published, also while a transaction is open.
        spool: what the tool, and we, note down of it.
        flag: the file that is there while a transaction is open.
    """

    def __init__(self, fqrn: str, roots: HostPaths) -> None:
        self.mount = roots.mounts / fqrn
        self.spool = roots.spool / fqrn
        self.published = self.spool / "rdonly"
        self.flag = self.spool / "in_transaction.lock"
        self._socket = self.spool / "cvmfs_io"
        self._publishing = self.spool / "is_publishing.lock"
        self._configuration = roots.configuration / fqrn / "server.conf"
        self._common = roots.configuration.parent / "server.local"

    def settings(self) -> dict[str, str]:
        """What cvmfs_server knows of the repository: ``server.conf``, and what ``server.local`` says for all. Raises OSError."""
        common = _settings(self._common) if self._common.exists() else {}
        return common | _settings(self._configuration)

    def mounted(self) -> tuple[int, int] | None:
        """Which mount shows what is published; None while there is none, or none that answers.

        Numbers of devices are used again at once, so that the time of the client's socket counts as well.
        """
        try:
            here, above = self.published.stat().st_dev, self.spool.stat().st_dev
            return None if here == above else (here, self._socket.stat().st_ctime_ns)
        except OSError:
            return None

    def identity(self) -> str | None:
        """Which transaction is open, as the flag file's inode and time; None where none is."""
        try:
            status = self.flag.stat()
        except FileNotFoundError:
            return None
        seconds, rest = divmod(status.st_mtime_ns, 10**9)
        return f"{status.st_ino} {seconds}.{rest:09d}"

    def publishing(self) -> bool:
        """Whether a publish is under way: its lock file is not only there but locked."""
        try:
            descriptor = os.open(self._publishing, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def wait_for_stragglers(self, token: str, patience: float) -> None:
        """Wait for what a killed run started and what goes on without it: the tool, and what writes below the mount.

        Raises:
            RepositoryError: something is still at work after ``patience`` seconds.
        """
        deadline = time.monotonic() + patience
        while busy := self._at_work(token):
            if time.monotonic() >= deadline:
                raise RepositoryError(
                    f"{self.mount}: what an interrupted run has started is still at work, as process {busy}",
                    hint=f"run again when it has ended, or end it (kill {busy})",
                )
            time.sleep(_POLL)

    def _at_work(self, token: str) -> int | None:
        for process in _processes():
            with contextlib.suppress(OSError):  # it has just ended, or is another user's
                if _marked(process, token) or _writes_below(process, self.mount):
                    return int(process.name)
        return None


def _settings(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = (_SETTING.fullmatch(line) for line in lines)
    return {match[1]: match[3] for match in found if match is not None}


def _processes() -> Iterator[Path]:
    own = str(os.getpid())
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != own:
            yield process


def _marked(process: Path, token: str) -> bool:
    """Whether it belongs to a transaction. The client that the tool mounts with inherits the mark, and stays: it is no work."""
    if f"{MARK}={token}".encode() not in (process / "environ").read_bytes().split(b"\0"):
        return False
    arguments = (process / "cmdline").read_bytes().split(b"\0")
    return any(os.path.basename(argument).startswith(b"cvmfs_") for argument in arguments)  # noqa: PTH119 - bytes


def _writes_below(process: Path, mount: Path) -> bool:
    for descriptor in (process / "fd").iterdir():
        target = os.readlink(descriptor)  # noqa: PTH115 - a text that need not be a path
        if target == str(mount) or target.startswith(f"{mount}/"):
            flags = re.search(rb"^flags:\s*([0-7]+)", (process / "fdinfo" / descriptor.name).read_bytes(), re.MULTILINE)
            if flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY:
                return True
    return False
