"""Two publisher hosts of one repository behind a gateway: of the stand-in, or the real ones that the environment names.

A real host is a process in a mount namespace with ``/cvmfs``, ``/var/spool/cvmfs`` and ``/etc/cvmfs`` of its own. What is done on
a host is done in a child process that has entered its mounts; the stand-in's hosts share the mounts of the tests.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import hmac
import http.client
import os
import shutil
import subprocess
import urllib.parse
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.targets.repositories.cvmfs.repository import CvmfsRepository
from publisher.targets.repositories.cvmfs.server import PROGRAM, CvmfsTimeouts
from tests.support.cvmfs.stand_in import FakeCvmfs, own_mounts
from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "OSPOOL_TEST_CVMFS_GATEWAY"
"""The environment variable that names a repository, which tests may empty, and two processes: ``FQRN:PID:PID``."""

IMPATIENT = CvmfsTimeouts(transaction=60, publish=120, abort=60, lease=0)
_CLONE_NEWNS = 0x00020000  # linux/sched.h


class GatewayHosts(ABC):
    """Two publisher hosts, 0 and 1.

    Attributes:
        fqrn: the name of their repository.
    """

    fqrn: str

    @abstractmethod
    def on(self, host: int, work: Callable[[CvmfsRepository], object]) -> None:
        """Do some work on a host: with its repository, which does not wait for a lease."""

    @abstractmethod
    def mount(self, host: int) -> Path:
        """Return where the repository can be written, for work on this host."""

    @abstractmethod
    def token(self, host: int) -> Path:
        """Return the file of the lease's token, for work on this host."""

    @abstractmethod
    def run(self, host: int, *arguments: str) -> int:
        """Run ``cvmfs_server``, from within work on this host; return its exit status."""

    @abstractmethod
    def expire(self, host: int) -> None:
        """End the lease that a host has, from within work on this host."""


class FakeGateway(GatewayHosts):
    """The stand-in's hosts, below ``where``; the test is skipped if mounts are not allowed."""

    def __init__(self, where: Path) -> None:
        reason = own_mounts()
        if reason is not None:
            pytest.skip(f"CVMFS's stand-in was NOT tried: {reason}")
        self.place = where / "gateway"
        self.place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=256m", "fake", self.place], check=True)
        (self.place / "max_lease_time").write_text("7200")
        self.hosts = [FakeCvmfs(where, gateway=self.place, host=host) for host in ("one", "other")]
        self.fqrn = self.hosts[0].fqrn

    def on(self, host: int, work: Callable[[CvmfsRepository], object]) -> None:
        work(self.hosts[host].repository(timeouts=IMPATIENT))

    def mount(self, host: int) -> Path:
        return self.hosts[host].mount

    def token(self, host: int) -> Path:
        return self.hosts[host].spool / "session_token"

    def run(self, host: int, *arguments: str) -> int:
        return self.hosts[host].run(*arguments, check=False).returncode

    def expire(self, host: int) -> None:
        del host
        (self.place / "leases").unlink()

    def close(self) -> None:
        """Unmount everything."""
        for host in self.hosts:
            host.close()
        subprocess.run(["umount", "-l", self.place], check=True)


class RealGateway(GatewayHosts):
    """The real hosts that the environment names, their repository emptied; the test is skipped if there are none."""

    def __init__(self) -> None:
        value = os.environ.get(VARIABLE)
        if value is None or shutil.which(PROGRAM) is None:
            pytest.skip(
                f"a REAL gateway was NOT tried: {VARIABLE} names no repository and publisher hosts, or {PROGRAM} is missing"
            )
        self.fqrn, *self._processes = value.split(":")
        for host in (1, 0):
            self.on(host, lambda _, host=host: self._reset(host))  # type: ignore[misc]  # bound per host
        self.on(0, lambda _: self._empty())

    def _reset(self, host: int) -> None:
        self.run(host, "abort", "-f", self.fqrn)
        for path in self.token(host).parent.glob("image-publisher/*"):
            path.unlink()

    def _empty(self) -> None:
        assert self.run(0, "transaction", self.fqrn) == 0
        for path in self.mount(0).iterdir():
            subprocess.run(["rm", "-rf", path], check=True)
        assert self.run(0, "publish", "-f", self.fqrn) == 0

    def on(self, host: int, work: Callable[[CvmfsRepository], object]) -> None:
        def there() -> None:
            descriptor = os.open(f"/proc/{self._processes[host]}/ns/mnt", os.O_RDONLY)
            assert ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNS) == 0
            os.chdir("/")
            work(CvmfsRepository(self.fqrn, timeouts=IMPATIENT))

        assert child_process.end(child_process.start(there)) == 0

    def mount(self, host: int) -> Path:
        del host
        return Path("/cvmfs", self.fqrn)

    def token(self, host: int) -> Path:
        del host
        return Path("/var/spool/cvmfs", self.fqrn, "session_token")

    def run(self, host: int, *arguments: str) -> int:
        del host
        done = subprocess.run([PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/")
        return done.returncode

    def expire(self, host: int) -> None:
        token = self.token(host).read_text().strip()
        _, name, secret = Path(f"/etc/cvmfs/keys/{self.fqrn}.gw").read_text().split()
        digest = hmac.new(secret.encode(), token.encode(), hashlib.sha1).hexdigest()
        settings = Path(f"/etc/cvmfs/repositories.d/{self.fqrn}/server.conf").read_text()
        (line,) = (line for line in settings.splitlines() if line.startswith("CVMFS_UPSTREAM_STORAGE="))
        signature = base64.b64encode(digest.encode()).decode()
        gateway = urllib.parse.urlsplit(line.rpartition(",")[2])
        connection = http.client.HTTPConnection(gateway.netloc, timeout=60)
        connection.request("DELETE", f"{gateway.path}/leases/{token}", headers={"Authorization": f"{name} {signature}"})
        assert b'"ok"' in connection.getresponse().read()
        connection.close()
