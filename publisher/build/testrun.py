"""Does it start? The finished SIF is run once, shut away: it is a stranger's code, and keys and tokens live on this host.

A separate unprivileged account, no network, nothing of the host's directories, an empty home, a deadline. What passes for
an image without a shell, or for another architecture than this host's, is the structure alone, and the record says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import CommandError, TestRunError, UsageError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Iterator

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}
_INSPECT_DEADLINE = 60  # seconds
_OPEN_TO_ALL = Path("/var/tmp")  # noqa: S108 - a directory of a random name is made in it
_HOME = "ospool-test-run-"  # how a home's name begins


@dataclass(frozen=True)
class TestOutcome:
    """``test`` as the record has it: ``ran`` or ``structure``; why, where it is only the structure."""

    test: str
    reason: str = ""


class TestRunner:
    """Runs finished SIFs.

    Args:
        account: name of the account they run as; used where this process may change to it (root), else its own is.
        scratch: an existing directory for the run's home and temporary files; where the account cannot enter it (a state
            directory below a closed home), /var/tmp serves.
        deadline: seconds one image may take.

    Raises:
        UsageError: no such account.
    """

    __test__ = False  # not a test class, whatever its name looks like to pytest

    def __init__(self, account: str, scratch: Path, deadline: float = 120.0) -> None:
        self._scratch = scratch
        self._deadline = deadline
        self._account = _account(account) if os.geteuid() == 0 else None

    def test(self, sif: Path, *, architecture: str, has_shell: bool) -> TestOutcome:
        """Run ``/bin/sh -c :`` in the image, or look at its structure alone.

        Raises:
            TestRunError: Apptainer does not take the SIF, or the image does not start within the deadline.
        """
        host = _ARCHITECTURES.get(platform.machine(), platform.machine())
        if architecture != host:
            return self._structure(sif, f"built for {architecture}, this host is {host}")
        if not has_shell:
            return self._structure(sif, "the image has no /bin/sh")
        argv = ["apptainer", "--silent", "exec", "--containall", "--no-home", "--net", "--network", "none", "--pwd", "/"]
        self._run([*argv, "image.sif", "/bin/sh", "-c", ":"], sif, self._deadline)
        return TestOutcome("ran")

    def _structure(self, sif: Path, reason: str) -> TestOutcome:
        self._run(["apptainer", "--silent", "sif", "list", "image.sif"], sif, _INSPECT_DEADLINE)
        return TestOutcome("structure", reason)

    def _run(self, argv: list[str], sif: Path, deadline: float) -> None:
        """Run a command as the account, in a home of its own that has the SIF as ``image.sif``."""
        place = self._place()
        _sweep(place)
        with _home(place) as home:
            _lend(sif, home / "image.sif")
            env = {"HOME": str(home), "TMPDIR": str(home), "APPTAINER_CONFIGDIR": f"{home}/config"}
            env |= {"APPTAINER_CACHEDIR": f"{home}/cache", "APPTAINER_TMPDIR": str(home)}
            if self._account is not None:
                os.chown(home, self._account.uid, self._account.gid)
            try:
                command.run(argv, deadline=deadline, env=env, cwd=home, account=self._account)
            except CommandError as error:
                raise TestRunError(f"the test run of the finished SIF failed: {error.reason}", hint=error.hint) from error

    def _place(self) -> Path:
        """Where the account can have a home: the first directory that it may enter."""
        if self._account is None:
            return self._scratch
        for place in (self._scratch, _OPEN_TO_ALL):
            asked = command.run(["test", "-x", str(place)], deadline=_INSPECT_DEADLINE, account=self._account, accept=(0, 1))
            if asked.status == 0:
                return place
        raise UsageError("the account that images are tested as can enter neither --state nor /var/tmp")


@contextlib.contextmanager
def _home(place: Path) -> Iterator[Path]:
    """A new directory, locked by flock(2) as long as it is in use."""
    while True:
        home = Path(tempfile.mkdtemp(prefix=_HOME, dir=place))
        with _locked(home) as held:
            if held:
                yield home
                return


def _sweep(place: Path) -> None:
    """Remove the homes of killed runs: the SIF in each is a whole copy, or keeps the room of one that was removed."""
    for home in place.glob(f"{_HOME}*"):
        with _locked(home):
            pass  # nobody's: gone afterwards


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[bool]:
    """Whether a directory is there and nobody else has it; afterwards it is gone, if it was ours."""
    try:
        descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # gone, no directory, or somebody else's
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.fstat(descriptor).st_nlink > 0
    except BlockingIOError:
        held = False
    try:
        yield held
    finally:
        if held:
            shutil.rmtree(home, ignore_errors=True)
        os.close(descriptor)


def _lend(sif: Path, name: Path) -> None:
    """Give a SIF another name, readable to all: a link, or a copy where that is on another device."""
    try:
        name.hardlink_to(sif)
    except OSError:
        shutil.copyfile(sif, name)
    name.chmod(0o644)


def _account(name: str) -> command.UnixAccount:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(
            f"there is no account {name!r} to test images as", hint="set test_account to an unprivileged one"
        ) from None
    if entry.pw_uid == 0:
        raise UsageError("images are not tested as root", hint="set test_account to an unprivileged account")
    return command.UnixAccount(entry.pw_uid, entry.pw_gid)
