"""A repository of the fake behind a gateway: several publisher hosts, of which one at a time has the lease of a path.

A host has a ``CVMFS_FAKE_ROOT`` of its own, whose file ``gateway`` names the directory that all hosts share::

    srv               the stratum 0
    revisions/NUMBER  what is published: each revision is a tree of its own, which a host mounts until its next command
    hosts/NAME        the upper directory of a host's overlay
    leases            one lease a line: path, token and end (in seconds since the epoch), separated by tabs
    max_lease_time    seconds that a new lease lasts
    down              exists while the gateway does not answer
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import sys
import time

from tests.fakes.cvmfs_server.repository import Failure, Repository, mounts, must, root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

INVALID = (
    'SessionContext::DoUpload - error reply: {"reason":"invalid lease","status":"error"}\n'
    "SessionContext: could not submit payload. Aborting.\nKilled\nSynchronization failed"
)
DOWN = "Make lease acquire request failed: 7. Reply: \n(unexpected termination) cannot acquire lease"


def named(name: str | None) -> Repository:
    """Return a repository that exists, behind a gateway or not; raise Failure if there is none."""
    kind = GatewayRepository if has_gateway() else Repository
    return kind.named(name)


def has_gateway() -> bool:
    return os.path.exists(f"{root()}/gateway")


class GatewayRepository(Repository):
    def __init__(self, name: str) -> None:
        name, _, self.path = name.partition("/")
        super().__init__(name)
        with open(f"{root()}/gateway", encoding="utf-8") as file:
            self.gateway = file.read()
        self.srv = f"{self.gateway}/srv"
        self.store = f"{self.gateway}/hosts/{os.path.basename(root())}"
        self.upper, self.work = f"{self.store}/upper", f"{self.store}/work"
        self.token = f"{self.spool}/session_token"
        self.mounted = f"{self.spool}/mounted"
        if os.path.exists(self.mounted):
            self.lower = os.readlink(self.mounted)

    def make(self) -> None:
        for directory in (self.mount, self.published, self.etc, f"{root()}/faults", self.upper, self.work, self.srv):
            os.makedirs(directory, exist_ok=True)
        if not os.path.exists(f"{self.srv}/.cvmfspublished"):
            os.makedirs(self.newest(1))
            self.start_stratum()
        self.configure(f"CVMFS_UPSTREAM_STORAGE=gw,{self.srv}/data/txn,http://gateway.example.org:4929/api/v1\n")
        self.remount(writable=False)

    def newest(self, revision: int | None = None) -> str:
        return f"{self.gateway}/revisions/{self.revision() if revision is None else revision}"

    # --- mounts

    def remount(self, *, writable: bool) -> None:
        if self.published not in mounts():
            self.lower = self.newest()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.mounted)
            os.symlink(self.lower, self.mounted)
        super().remount(writable=writable)

    def follow(self) -> None:
        if self.lower != self.newest() and not self.in_transaction():
            print(f"{self.name} is not based on the newest published revision", file=sys.stderr)
            for place in (self.mount, self.published):
                if place in mounts():
                    must("umount", "-l", place)
            self.remount(writable=False)

    # --- leases

    @contextlib.contextmanager
    def leases(self) -> Iterator[list[list[str]]]:
        """Yield the leases, for changes."""
        path = f"{self.gateway}/leases"
        with open(f"{self.gateway}/lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = []
            with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
                found = [line.rstrip("\n").split("\t") for line in file]
            yield found
            with open(f"{path}.new", "w", encoding="ascii") as file:
                file.writelines("\t".join(lease) + "\n" for lease in found)
            os.replace(f"{path}.new", path)

    def acquire(self) -> None:
        """Take a lease, unless there is a token already, whatever it is worth."""
        if os.path.exists(self.token):
            return
        if os.path.exists(f"{self.gateway}/down"):
            raise Failure(1, DOWN)
        if self.path and not os.path.isdir(f"{self.newest()}/{os.path.dirname(self.path)}"):
            raise Failure(errno.ENOENT, f"cannot open transaction on non-existing path /{os.path.dirname(self.path)}")
        with open(f"{self.gateway}/max_lease_time", encoding="ascii") as file:
            until = time.time() + float(file.read())
        token = secrets.token_hex(16)
        with self.leases() as leases:
            for path, _, end in leases:
                if float(end) > time.time() and is_overlapping(path, self.path):
                    print(f"Path busy. Time remaining = {float(end) - time.time():.9f}s")
                    raise Failure(errno.EBUSY, "CernVM-FS transaction error: lease path busy")
            leases[:] = [lease for lease in leases if not is_overlapping(lease[0], self.path)] + [[self.path, token, str(until)]]
        with open(self.token, "w", encoding="ascii") as file:
            file.write(token)
        print("Gateway reply: ok")

    def lease(self) -> str | None:
        """Return the path of the lease that this host's token is for, None if it is for none that is valid."""
        token = ""
        with contextlib.suppress(FileNotFoundError), open(self.token, encoding="ascii") as file:
            token = file.read()
        with self.leases() as leases:
            return next((path for path, own, end in leases if own == token and float(end) > time.time()), None)

    def drop_lease(self) -> None:
        if not os.path.exists(self.token):
            return
        if os.path.exists(f"{self.gateway}/down"):
            raise Failure(5, "Make lease drop request failed: 7. Reply: ''\ncannot drop lease")
        if self.lease() is None:
            print("Error from gateway: 'invalid lease'\nforce abort, continue despite error while trying to drop lease")
        else:
            print("Gateway reply: ok")
        self.end_lease()
        os.unlink(self.token)

    def end_lease(self) -> None:
        with open(self.token, encoding="ascii") as file:
            token = file.read()
        with self.leases() as leases:
            leases[:] = [lease for lease in leases if lease[1] != token]

    # --- a publish

    def start_revision(self) -> None:
        if self.lease() is None:
            raise Failure(1, INVALID)
        self.lower = f"{self.gateway}/revisions/{os.getpid()}.new"
        must("cp", "-al", self.newest(), self.lower)

    def takes(self, path: str) -> bool:
        """Return whether a change is published: what is not below the lease's path is dropped without a word."""
        leased = self.lease()
        return not leased or path == leased or path.startswith(f"{leased}/")

    def set_revision(self, number: int) -> None:
        if self.lower.endswith(".new"):
            if self.lease() is None:
                raise Failure(1, INVALID)
            os.rename(self.lower, self.newest(number))
        super().set_revision(number)
        if os.path.exists(self.token):
            self.end_lease()

    def close_transaction(self, *, lazy: bool = False) -> bool:
        closed = super().close_transaction(lazy=lazy)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.token)
        return closed


def is_overlapping(first: str, second: str) -> bool:
    return not first or not second or f"{first}/".startswith(f"{second}/") or f"{second}/".startswith(f"{first}/")
