"""A repository of the fake: its paths, mounts, locks, states and injected faults.

A fault is the text of ``faults/COMMAND``, which is removed when it takes effect::

    fail STATUS MESSAGE   ends with that status without doing anything
    lie                   ends with status 0 without doing anything
    hang                  does nothing and does not end
    kill                  is killed before its main effect
    killed-late           is killed after its main effect, before the transaction is closed
    cut, cut-late         likewise, and so are all programs of its process group, as when the power goes
    fail-late             ends with status 1 at that point (as a failing garbage collection does)
    orphan PID            kills that process and goes on
    orphan-late PID       kills it after the main effect, before the transaction is closed, and goes on
    interrupt PID, interrupt-late PID   likewise, but interrupts it (SIGINT) and takes one second longer
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Failure(Exception):  # noqa: N818 - the way in which the program ends
    def __init__(self, status: int, message: str, stdout: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.stdout = status, message, stdout


def root() -> str:
    return os.environ.get("CVMFS_FAKE_ROOT", "")


def version() -> str:
    """Return the version that the tool shows: 2.12.0, unless a test has written another one."""
    try:
        with open(f"{root()}/version", encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return "2.12.0"


def repositories() -> list[Repository]:
    return [Repository(name) for name in sorted(os.listdir(f"{root()}/etc"))]


def must(*argv: str) -> None:
    """Run a program that has to succeed."""
    pid = os.posix_spawnp(argv[0], argv, os.environ)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        raise Failure(1, f"{' '.join(argv)}: status {status}")


def interfere(kind: str, process: str) -> None:
    """Kill or interrupt a process, as a fault says: the tool itself, with all that runs it, or another one."""
    if kind.startswith("cut"):
        os.killpg(0, signal.SIGKILL)
    if kind.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind.startswith("orphan"):
        os.kill(int(process), signal.SIGKILL)
    else:
        os.kill(int(process), signal.SIGINT)
        time.sleep(1)


def mounts() -> dict[str, list[str]]:
    """Return the options of every mount point."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as lines:
        return {fields[1]: fields[3].split(",") for fields in (line.split() for line in lines)}


class Repository:
    """A repository below :func:`root`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mount = f"{root()}/cvmfs/{name}"
        self.spool = f"{root()}/spool/{name}"
        self.published = f"{self.spool}/rdonly"
        self.etc = f"{root()}/etc/{name}"
        self.srv = f"{root()}/srv/{name}"
        self.store = f"{self.srv}/store"  # a file system of its own: lower, upper, work
        self.lower, self.upper, self.work = (f"{self.store}/{part}" for part in ("lower", "upper", "work"))
        self.flag = f"{self.spool}/in_transaction.lock"
        self.lock = f"{self.spool}/is_publishing.lock"

    @classmethod
    def named(cls, name: str | None) -> Repository:
        repository = cls(name or "")
        if not name or not os.path.isdir(repository.etc):
            raise Failure(1, f"CernVM-FS error: Unable to find the configuration file `server.conf` for {name}")
        return repository

    def make(self) -> None:
        for directory in (self.mount, self.published, self.etc, self.store, f"{root()}/faults"):
            os.makedirs(directory, exist_ok=True)
        must("mount", "-t", "tmpfs", "-o", "mode=0755", "store", self.store)
        for directory in (self.lower, self.upper, self.work):
            os.mkdir(directory)
        self.start_stratum()
        self.configure()
        self.remount(writable=False)

    def configure(self, more: str = "") -> None:
        os.mkdir(f"{self.spool}/scratch")
        os.symlink(self.upper, f"{self.spool}/scratch/current")
        with open(f"{self.etc}/server.conf", "w", encoding="ascii") as conf:
            conf.write(f"CVMFS_REPOSITORY_TYPE=stratum0\nCVMFS_USER=root\nCVMFS_STRATUM0=file://{self.srv}\n")
            conf.write(f"CVMFS_SPOOL_DIR={self.spool}\nCVMFS_INCLUDE_XATTRS='false'\n")
            conf.write("CVMFS_GARBAGE_COLLECTION=true\nCVMFS_AUTO_GC=false\nCVMFS_AUTO_TAG=false\n")
            conf.write("CVMFS_FORCE_REMOUNT_WARNING=false\n")
            conf.write(more)

    def start_stratum(self) -> None:
        expiry = time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() + 30 * 86400))
        with open(f"{self.srv}/.cvmfswhitelist", "wb") as whitelist:
            whitelist.write(f"20200101000000\nE{expiry}\nN{self.name}\n--\n".encode() + b"\x00\xff signature\n")
        self.set_revision(1)

    # --- the stratum 0

    def settings(self) -> dict[str, str]:
        with open(f"{self.etc}/server.conf", encoding="ascii") as conf:
            pairs = (line.strip().partition("=") for line in conf)
            return {name: value for name, _, value in pairs}

    def stratum(self) -> str:
        return self.settings().get("CVMFS_STRATUM0", "")

    def stratum_reachable(self) -> bool:
        there = self.stratum() == f"file://{self.srv}" or self.stratum().startswith("http://127.0.0.1:")
        return there and os.path.exists(f"{self.srv}/.cvmfswhitelist")

    def whitelist_expired(self) -> bool:
        with open(f"{self.srv}/.cvmfswhitelist", "rb") as whitelist:
            expiry = whitelist.read().split(b"\n")[1][1:].decode()
        return expiry < time.strftime("%Y%m%d%H%M%S", time.gmtime())

    def revision(self) -> int:
        with open(f"{self.srv}/.cvmfspublished", "rb") as manifest:
            return int(next(line for line in manifest.read().split(b"\n") if line.startswith(b"S"))[1:])

    def set_revision(self, number: int) -> None:
        with open(f"{self.srv}/.cvmfspublished.new", "wb") as manifest:
            manifest.write(f"C{number:040x}\nB1024\nS{number}\nN{self.name}\n--\n".encode() + b"\x00\xff signature\n")
        os.replace(f"{self.srv}/.cvmfspublished.new", f"{self.srv}/.cvmfspublished")

    # --- mounts

    def remount(self, *, writable: bool) -> None:
        """Mount the overlay again. Processes that use the old mount keep it, as with the real program's lazy unmount."""
        if self.published not in mounts():
            must("mount", "--bind", self.lower, self.published)
            with open(f"{self.spool}/client", "wb"):  # each client has a socket of its own
                os.replace(f"{self.spool}/client", f"{self.spool}/cvmfs_io")
        if self.mount in mounts():
            must("umount", "-l", self.mount)
        layers = f"lowerdir={self.lower},upperdir={self.upper},workdir={self.work},redirect_dir=off,index=off,metacopy=off"
        must("mount", "-t", "overlay", f"overlay_{self.name}", "-o", f"{layers},nodev,{'rw' if writable else 'ro'}", self.mount)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Mount the overlay for reading only, as during a publish; it stays so if the tool is killed."""
        must("mount", "-o", "remount,ro", self.mount)
        try:
            yield
        except Failure:
            if self.mount in mounts():
                must("mount", "-o", "remount,rw", self.mount)
            raise

    def healthy(self) -> bool:
        """Return whether the mounts are consistent; after a publish that died they are not, until an abort."""
        found = mounts()
        options = found.get(self.mount, ["none"])
        wanted = "rw" if self.in_transaction() else "ro"
        return self.published in found and wanted in options

    def users(self) -> tuple[bool, bool]:
        """Return whether a process uses the mount, as ``(for reading, for writing)``; a working directory counts as reading."""
        reading = writing = False
        for process in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                places = [f"/proc/{process}/cwd", *(f"/proc/{process}/fd/{fd}" for fd in os.listdir(f"/proc/{process}/fd"))]
                for place in places:
                    where = os.readlink(place)
                    if where == self.mount or where.startswith(f"{self.mount}/"):
                        write = place.rpartition("/")[0].endswith("fd") and os.lstat(place).st_mode & 0o200
                        writing, reading = writing or bool(write), reading or not write
        return reading, writing

    # --- a gateway, which gateway.py has

    def follow(self) -> None:
        """Mount the newest revision, which another host may have published."""

    def acquire(self) -> None:
        """Take the lease."""

    def drop_lease(self) -> None:
        """Give back the lease."""

    def start_revision(self) -> None:
        """Make ``lower`` what will be the next revision."""

    def takes(self, path: str) -> bool:
        """Return whether a change is published."""
        del path
        return True

    # --- states

    def in_transaction(self) -> bool:
        return os.path.exists(self.flag)

    def open_transaction(self) -> None:
        os.close(os.open(self.flag, os.O_WRONLY | os.O_CREAT, 0o600))

    def close_transaction(self, *, lazy: bool = False) -> bool:
        """Close the transaction and mount the new revision; return False if a process still uses the mount of the last one.

        The real program does not check for readers there; a reader of the other mount makes it unmount both lazily.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.lock)  # left by a publish that died
        if self.published in mounts():
            try:
                must("umount", *(["-l"] if lazy else []), self.published)
            except Failure:
                if self.mount in mounts():
                    must("umount", "-l", self.mount)
                self.log("busy")
                return False
        self.remount(writable=False)
        os.unlink(self.flag)
        return True

    def is_publishing(self) -> bool:
        try:
            descriptor = os.open(self.lock, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextlib.contextmanager
    def publishing_lock(self) -> Iterator[None]:
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.lock)
            os.close(descriptor)

    def checked_out(self) -> str:
        return " [checked out tag 'old' on branch 'fix']" if os.path.exists(f"{self.spool}/checkout") else ""

    # --- faults and the log

    def fault(self, command: str, moment: str) -> None:
        path = f"{root()}/faults/{command}"
        try:
            with open(path, encoding="utf-8") as file:
                kind, _, rest = file.read().strip().partition(" ")
        except FileNotFoundError:
            return
        if (moment == "after") != kind.endswith("-late"):
            return
        os.unlink(path)
        if kind.startswith(("cut", "kill", "orphan", "interrupt")):
            interfere(kind, rest)
            return
        if kind == "lie":
            sys.exit(0)
        if kind == "fail":
            status, _, message = rest.partition(" ")
            raise Failure(int(status), message)
        if kind == "fail-late":
            raise Failure(1, "Garbage collection failed (1)")
        while kind == "hang":
            time.sleep(3600)

    def log(self, command: str, **numbers: int) -> None:
        values = {"time": time.time_ns(), **numbers}
        said = ", ".join([f'"command": "{command}"', *(f'"{name}": {number}' for name, number in values.items())])
        with open(f"{root()}/log", "a", encoding="ascii") as log:
            log.write(f"{{{said}}}\n")
