"""The repository of a real ``cvmfs_server`` that the environment names, for tests to empty and publish to.

It takes the place of the stand-in's, in one run of tests or the other: the stand-in wants mounts of its own, and in a process
that has such the real tool's unmounting would reach only them. Nothing else on the host may hold mounts of its own either
(``unshare --mount``), or the tool waits for ever for a client that cannot end.

``server.conf`` has to say what docs/operations.md asks for, or each run has something to tell.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from publisher.targets.repositories.cvmfs.mounts.mount_gate import MountGate
from publisher.targets.repositories.cvmfs.mounts.mount_repair import BOOT_NAME
from publisher.targets.repositories.cvmfs.repository import CvmfsRepository
from publisher.targets.repositories.cvmfs.server import PROGRAM
from publisher.targets.repositories.cvmfs.stratum import StratumZero

if TYPE_CHECKING:
    from collections.abc import Sequence

VARIABLE = "OSPOOL_TEST_CVMFS_REPOSITORY"
"""The environment variable that names the repository."""

CLIENT_VARIABLE = "OSPOOL_TEST_CVMFS_CLIENT"
"""The environment variable that names a mount of that repository by a client of its own; CVMFS_REPOSITORY_TTL=1 saves minutes."""

_FOLLOWED, _POLL = 120.0, 0.1  # seconds

_FAULTY = """#!/bin/sh
# The real tool, with the faults of tests/fakes/cvmfs_server/repository.py: something is killed, or held open, at a moment that
# can be seen from outside.
echo "$1" >>"{where}/log"
[ -e "{where}/faults/$1" ] || exec {program} "$@"
read -r kind pid rest <"{where}/faults/$1"
rm "{where}/faults/$1"
published() {{ curl -s "{stratum}/.cvmfspublished" | grep -a ^S; }}
before=$(published)
case $kind in
    fail) echo "$rest" >&2; exit "$pid" ;;
    lie) exit 0 ;;
    hang) exec sleep 3600 ;;
    fail-late) exec 7<"{spool}/rdonly/.publisher/index.json"; {program} "$@" 7<&-; exit $? ;;
    kill) [ "$1" = publish ] || kill -9 $$ ;;
esac
setsid {program} "$@" &
tool=$!
case "$1 $kind" in
    "publish "*-late) while [ "$(published)" = "$before" ] && kill -0 $tool; do sleep 0.01; done ;;
    "publish "*) until [ -e "{spool}/is_publishing.lock" ] || ! kill -0 $tool; do sleep 0.01; done ;;
    *-late) wait $tool ;;
esac
case $kind in
    orphan*) kill -9 "$pid" ;;
    *) kill -9 -- -$tool; kill -9 $$ ;;
esac
wait $tool
"""


def real_name() -> str | None:
    """Return the repository of a real server that tests use instead of the stand-in's, None if there is none."""
    return os.environ.get(VARIABLE) if shutil.which(PROGRAM) is not None else None


class RealCvmfs:
    """The real repository, emptied; the test is skipped, with a message, if there is none."""

    def __init__(self, where: Path) -> None:
        fqrn = real_name()
        if fqrn is None:
            pytest.skip(
                f"a REAL {PROGRAM} was NOT tried: it is not on PATH, or {VARIABLE} names no repository that tests may empty"
            )
        self.fqrn = fqrn
        self.root = where / "real-cvmfs"
        self.spool = Path("/var/spool/cvmfs", fqrn)
        self.mount = Path("/cvmfs", fqrn)
        self.flag = self.spool / "in_transaction.lock"
        self.stratum = f"http://localhost/cvmfs/{fqrn}"
        self.program = self.root / PROGRAM
        (self.root / "faults").mkdir(parents=True)
        real = shutil.which(PROGRAM)
        self.program.write_text(_FAULTY.format(where=self.root, program=real, stratum=self.stratum, spool=self.spool))
        self.program.chmod(0o755)
        self._empty()

    def _empty(self) -> None:
        """Discard and remove what a failed test may have left."""
        if self.flag.exists():
            self.run("abort", "-f", self.fqrn)
        self.run("transaction", self.fqrn)
        for path in self.mount.iterdir():
            subprocess.run(["rm", "-rf", path], check=True)
        self.run("publish", "-f", self.fqrn)
        for path in (self.spool / "image-publisher").glob("*"):
            path.unlink()
        (self.root / "log").unlink()

    @property
    def client(self) -> Path:
        """Return where another client than the publisher's has the repository mounted; skip the test if there is none."""
        place = os.environ.get(CLIENT_VARIABLE)
        if place is None:
            pytest.skip(
                f"a watcher on a real client was NOT tried: {CLIENT_VARIABLE} names no mount of the repository by a client"
            )
        return Path(place)

    def wait_for_client(self) -> None:
        """Return when the other client shows the published revision; CVMFS_REPOSITORY_TTL says how often it looks."""
        until = time.monotonic() + _FOLLOWED
        while int(os.getxattr(self.client, "user.revision")) != self.revision():
            assert time.monotonic() < until, "the client does not follow: is its cache of another repository?"
            list(self.client.iterdir())  # a client looks for a new revision when it is asked for something
            time.sleep(_POLL)

    def repository(self, **more: Any) -> CvmfsRepository:
        return CvmfsRepository(self.fqrn, program=str(self.program), **more)

    def run(self, *arguments: str, accept: Sequence[int] = (0,)) -> None:
        done = subprocess.run(
            [self.program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd="/"
        )
        assert done.returncode in accept, done.stdout + done.stderr

    def fault(self, command: str, what: str) -> None:
        """Make the next such command fail."""
        (self.root / "faults" / command).write_text(f"{what}\n")

    def claimed(self) -> list[str]:
        """Return the names of files that our transactions have left in the spool; empty if no transaction is open."""
        return sorted({path.name for path in (self.spool / "image-publisher").iterdir()} - {"lock", BOOT_NAME, *MountGate.NAMES})

    def commands(self) -> list[str]:
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    def revision(self) -> int:
        return StratumZero(self.stratum).revision()

    def log(self) -> list[dict[str, Any]]:
        pytest.skip("only the stand-in counts what its commands do")

    def close(self) -> None:
        """Do nothing: the next test empties the repository."""


def real_repository(place: Path) -> CvmfsRepository:
    """Return the real repository; the first call for a directory empties it."""
    if not (place / "real-cvmfs").exists():
        return RealCvmfs(place).repository()
    return CvmfsRepository(os.environ[VARIABLE])
