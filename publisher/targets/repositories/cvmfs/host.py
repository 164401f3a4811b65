"""The files of a CVMFS repository on its publisher host: mounts, configuration, and the state of transactions."""

from __future__ import annotations

import contextlib
import fcntl
import logging
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

_log = logging.getLogger(__name__)
_SETTING = re.compile(r"""\s*(CVMFS_[A-Z0-9_]+)=(["']?)(.*?)\2\s*""", re.ASCII)
_POLL = 0.1  # seconds


@dataclass(frozen=True)
class HostPaths:
    """The directories that a host keeps its repositories in, and the kernel's files; tests use others than the defaults."""

    mounts: Path = Path("/cvmfs")
    spool: Path = Path("/var/spool/cvmfs")
    configuration: Path = Path("/etc/cvmfs/repositories.d")
    kernel: Path = Path("/proc")


class CvmfsHost:
    """The files of one repository on its publisher host.

    Attributes:
        mount: where the repository can be written while a transaction is open.
        published: the mount that shows the published content, even while a transaction is open.
        spool: the directory of the tool's state, and of ours.
        flag: the file that exists while a transaction is open.
        publishing_lock: the file that is locked while a publish is in progress.
        lease_token: the file that has the token of a gateway's lease, while there is one.
    """

    def __init__(self, fqrn: str, host_paths: HostPaths) -> None:
        self.mount = host_paths.mounts / fqrn
        self.spool = host_paths.spool / fqrn
        self.published = self.spool / "rdonly"
        self.flag = self.spool / "in_transaction.lock"
        self._socket = self.spool / "cvmfs_io"
        self.publishing_lock = self.spool / "is_publishing.lock"
        self.lease_token = self.spool / "session_token"
        self._kernel = host_paths.kernel
        self._scratch = self.spool / "scratch/current"
        self._checkout = self.spool / "checkout"
        self._configuration = host_paths.configuration / fqrn
        self._common = host_paths.configuration.parent / "server.local"

    def settings(self) -> dict[str, str]:
        """Return the settings in ``server.conf``, over those in ``server.local`` for all repositories. Raises OSError."""
        common = _settings(self._common) if self._common.exists() else {}
        return common | _settings(self._configuration / "server.conf")

    def is_configured(self) -> bool:
        """Return whether this host has the repository."""
        return self._configuration.is_dir()

    def is_replica(self) -> bool:
        """Return whether the repository is a replica, which a stratum 1 has."""
        return (self._configuration / "replica.conf").is_file()

    def has_old_tag(self) -> bool:
        """Return whether an earlier revision than the last one is checked out."""
        return self._checkout.is_file()

    def is_mounted(self) -> bool:
        """Return whether the published content and the repository are mounted, the repository for reading only.

        This is so as long as no transaction is open.
        """
        options = _mount_options()
        published, mount = map(os.path.realpath, (self.published, self.mount))  # the kernel shows no symbolic links
        return published in options and "ro" in options.get(mount, ())

    def published_mount(self) -> tuple[int, int] | None:
        """Identify the mount that shows the published content; return None if there is none, or it does not answer.

        Device numbers are reused at once, so the identity includes the time of the client's socket.
        """
        try:
            device, parent = self.published.stat().st_dev, self.spool.stat().st_dev
            return None if device == parent else (device, self._socket.stat().st_ctime_ns)
        except OSError:
            return None

    def open_transaction(self) -> str | None:
        """Identify the open transaction by the flag file's inode and time; return None if no transaction is open."""
        try:
            status = self.flag.stat()
        except FileNotFoundError:
            return None
        seconds, rest = divmod(status.st_mtime_ns, 10**9)
        return f"{status.st_ino} {seconds}.{rest:09d}"

    def boot(self) -> str:
        """Identify the host's present boot."""
        return (self._kernel / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    def is_open_since_before_boot(self) -> bool:
        """Return whether the open transaction is older than the host's present boot; False if none is open."""
        match = re.search(r"^btime ([0-9]+)$", (self._kernel / "stat").read_text(encoding="ascii"), re.MULTILINE)
        try:
            return match is not None and self.flag.stat().st_mtime < int(match[1])
        except FileNotFoundError:
            return False

    def has_changes(self) -> bool:
        """Return whether anything was written in the open transaction."""
        try:
            with os.scandir(self._scratch) as entries:
                return next(entries, None) is not None
        except FileNotFoundError:
            return False

    def is_publishing(self) -> bool:
        """Return whether a publish is in progress: its lock file exists and is locked."""
        try:
            descriptor = os.open(self.publishing_lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def has_transaction(self) -> bool:
        """Return whether a transaction is open or a publish is in progress, whoever's it is."""
        return self.open_transaction() is not None or self.is_publishing()

    def wait_for_stragglers(self, token: str, timeout: float) -> None:
        """Wait for processes of a killed run that go on without it: the tool, and processes that write below the mount.

        Args:
            token: identifies the transaction of the killed run.
            timeout: seconds to wait.

        Raises:
            RepositoryError: such a process still runs after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        waiting = False
        while straggler := self._straggler(token):
            if time.monotonic() >= deadline:
                raise RepositoryError(
                    f"{self.mount}: a program that an interrupted run has started is still at work, as process {straggler}",
                    hint=f"run again when it has ended, or end it (kill {straggler})",
                )
            if not waiting:
                said = "%s: waiting for process %d, which an interrupted run has started, for %.0f s at most"
                _log.warning(said, self.mount, straggler, timeout)
                waiting = True
            time.sleep(_POLL)

    def _straggler(self, token: str) -> int | None:
        for process in _processes():
            with contextlib.suppress(OSError):  # it has just ended, or is another user's
                if _is_marked(process, token) or _writes_below(process, self.mount):
                    return int(process.name)
        return None


def _mount_options() -> dict[str, list[str]]:
    """Return the options of every mount point; of mounts above each other, those of the last."""
    lines = Path("/proc/self/mounts").read_bytes().splitlines()
    fields = (os.fsdecode(line).split(" ") for line in lines)
    return {columns[1]: columns[3].split(",") for columns in fields}


def _settings(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    matches = (_SETTING.fullmatch(line) for line in lines)
    return {match[1]: match[3] for match in matches if match is not None}


def _processes() -> Iterator[Path]:
    own = str(os.getpid())
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != own:
            yield process


def _is_marked(process: Path, token: str) -> bool:
    """Return whether a process works for a transaction.

    The client that the tool mounts with inherits the mark and keeps running; it does not count.
    """
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
