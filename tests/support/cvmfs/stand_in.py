"""A new repository of the stand-in for ``cvmfs_server``, for tests."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from publisher.targets.repositories.cvmfs.host import HostPaths
from publisher.targets.repositories.cvmfs.mounts.mount_gate import MountGate
from publisher.targets.repositories.cvmfs.mounts.mount_repair import BOOT_NAME
from publisher.targets.repositories.cvmfs.repository import CvmfsRepository
from publisher.targets.repositories.cvmfs.server import PROGRAM, CvmfsTimeouts
from tests.support.checkout import ROOT
from tests.support.cvmfs.real import real_name

if TYPE_CHECKING:
    from collections.abc import Callable

FQRN = "images.example.org"
_FAKE = ROOT / "tests/fakes/cvmfs_server"
_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_REC, _MS_SLAVE = 0x4000, 1 << 19  # linux/mount.h
_libc = ctypes.CDLL(None, use_errno=True)


@functools.cache
def own_mounts() -> str | None:
    """Give this process mounts of its own, which end with it; return why that is impossible, None if it was done."""
    if os.geteuid() != 0:
        return "mounts want root"
    if _libc.unshare(_CLONE_NEWNS) != 0 or _libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None) != 0:
        return f"mounts are not allowed here: {os.strerror(ctypes.get_errno())}"
    return None


class FakeCvmfs:
    """The stand-in with one repository, below ``where``; the test is skipped if mounts are not allowed.

    ``prepare`` is called with its root before the repository is made, for example to mount a disk there. With a ``gateway``, the
    stand-in is the publisher host ``host`` of several that share that directory.
    """

    def __init__(
        self,
        where: Path,
        *,
        size: str = "256m",
        prepare: Callable[[Path], object] | None = None,
        gateway: Path | None = None,
        host: str = "cvmfs",
    ) -> None:
        if real_name() is not None:
            pytest.skip("CVMFS's stand-in was not tried: a real one is, which wants the mounts of the host, and not our own")
        reason = own_mounts()
        if reason is not None:
            pytest.skip(f"CVMFS's stand-in was NOT tried: {reason}")
        self.fqrn = FQRN
        self.root = where / host
        self.root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0755,size={size}", "fake", self.root], check=True)
        for part in ("cvmfs", "spool", "etc", "srv", "bin"):
            (self.root / part).mkdir()
        self._start_kernel()
        self.program = self.root / "bin" / PROGRAM
        self.program.write_text(f'#!/bin/sh\nCVMFS_FAKE_ROOT={self.root} exec {sys.executable} -SE {_FAKE} "$@"\n')
        self.program.chmod(0o755)
        if prepare is not None:
            prepare(self.root)
        if gateway is not None:
            (self.root / "gateway").write_text(str(gateway))
        self.run("mkfs", FQRN)
        self.spool = self.root / "spool" / FQRN
        self.mount = self.root / "cvmfs" / FQRN
        self.stratum = self.root / "srv" / FQRN if gateway is None else gateway / "srv"
        self.configuration = self.root / "etc" / FQRN / "server.conf"
        self.flag = self.spool / "in_transaction.lock"

    @property
    def host_paths(self) -> HostPaths:
        return HostPaths(self.root / "cvmfs", self.root / "spool", self.root / "etc", self.root / "kernel")

    def _start_kernel(self) -> None:
        """Write what the kernel says of its boot."""
        kernel = self.root / "kernel"
        (kernel / "sys/kernel/random").mkdir(parents=True, exist_ok=True)
        (kernel / "sys/kernel/random/boot_id").write_text(f"{uuid.uuid4()}\n")
        (kernel / "stat").write_text(f"cpu 1 2 3\nbtime {int(time.time()) + 1}\n")

    def reboot(self) -> None:
        """Unmount the repository and start another boot, as a power cut does; files are older than the boot."""
        for place in (self.mount, self.spool / "rdonly"):
            subprocess.run(["umount", "-l", place], check=False, stderr=subprocess.DEVNULL)
        self._start_kernel()

    @property
    def client(self) -> Path:
        """Return where a client sees the repository: what is published, without the mounts of the publisher host."""
        return self.stratum / "store/lower"

    def wait_for_client(self) -> None:
        """Do nothing: the client sees at once what is published."""

    @property
    def python(self) -> str:
        """Return the interpreter that runs the stand-in."""
        return sys.executable

    def repository(self, **more: Any) -> CvmfsRepository:
        return self.named(FQRN, **more)

    def named(self, fqrn: str, **more: Any) -> CvmfsRepository:
        """Return a repository of this name, whether it exists or not."""
        more = {"timeouts": CvmfsTimeouts(transaction=20, publish=60, abort=20, lease=4), "timeout": 20.0, **more}
        return CvmfsRepository(fqrn, program=str(self.program), host_paths=self.host_paths, **more)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=check, cwd="/"
        )

    def fault(self, command: str, what: str) -> None:
        """Make the next such command fail; the stand-in's ``repository.py`` lists the faults."""
        (self.root / "faults" / command).write_text(what)

    def log(self) -> list[dict[str, Any]]:
        """Return the log of all commands, with the cost of each publish."""
        path = self.root / "log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def claimed(self) -> list[str]:
        """Return the names of files that our transactions have left in the spool; empty if no transaction is open."""
        return sorted({path.name for path in (self.spool / "image-publisher").iterdir()} - {"lock", BOOT_NAME, *MountGate.NAMES})

    def commands(self) -> list[str]:
        return [line["command"] for line in self.log()]

    def expire_whitelist(self, seconds: float) -> None:
        """Set the whitelist to expire in ``seconds``."""
        expiry = time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() + seconds))
        (self.stratum / ".cvmfswhitelist").write_bytes(f"20200101000000\nE{expiry}\nN{FQRN}\n--\n\0\xff".encode("latin-1"))

    def revision(self) -> int:
        return next(int(line[1:]) for line in (self.stratum / ".cvmfspublished").read_bytes().split(b"\n") if line[:1] == b"S")

    def close(self) -> None:
        """Unmount everything."""
        with Path("/proc/self/mounts").open(encoding="utf-8", errors="surrogateescape") as lines:
            mounted = [line.split()[1] for line in lines]
        for path in reversed([path for path in mounted if path == str(self.root) or path.startswith(f"{self.root}/")]):
            subprocess.run(["umount", "-l", path], check=True)


def fill(tree: Path, files: int = 3) -> None:
    """Make a small image: some files and a ``.cvmfscatalog``."""
    tree.mkdir()
    for number in range(files):
        (tree / f"file{number}").write_bytes(b"content")
    (tree / ".cvmfscatalog").touch()


def fake_repository(place: Path) -> CvmfsRepository:
    """Return the stand-in's repository below a directory; the first call creates it."""
    if (place / "cvmfs").is_dir():
        fake = FakeCvmfs.__new__(FakeCvmfs)
        fake.root = place / "cvmfs"
        fake.program = fake.root / "bin" / PROGRAM
        return fake.repository()
    return FakeCvmfs(place).repository()
