"""The test run of an image, isolated from this host, because the image is untrusted code and the host has keys and tokens.

The image runs as a separate unprivileged account, without network and without directories of the host, in an empty home, with a
deadline, within limits of memory, processes, file size and CPU time, and under a seccomp profile, which an Apptainer without
seccomp ignores. Images without a shell, or for another architecture than this host's, are only checked for a valid structure, and
the record says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.build.seccomp import make_profile
from publisher.contract.records import NO_SHELL
from publisher.errors import CommandError, TestRunError, UsageError
from publisher.system.accounts import WORLD_WRITABLE, find_account, first_enterable
from publisher.system.confinement import Confinement, ResourceLimits
from publisher.system.durable import delete

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_log = logging.getLogger(__name__)

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}
_INSPECT_DEADLINE = 60  # seconds
_HOME_PREFIX = "ospool-test-run-"
_PROFILE = "seccomp.json"
_NO_PROCESS = re.compile(r"resource temporarily unavailable|errno=11\b|cannot fork|failed to create new OS thread", re.IGNORECASE)
"""What programs say if they get no further process or thread (EAGAIN of fork(2) and clone(2))."""
_IMAGE = "image.sif"
"""What a SIF or sandbox is called where it is run."""


@dataclass(frozen=True)
class TestOutcome:
    """The outcome of a test.

    Attributes:
        test: ``ran``, or ``structure`` where the image was not run, as in the record.
        reason: why the image was not run, else empty.
    """

    __test__ = False  # tells pytest that this is not a test class

    test: str
    reason: str = ""


class TestRunner:
    """A tester that runs finished SIFs.

    Args:
        account: name of the account that SIFs run as, if this process is root; else they run as this process's account.
        scratch: an existing directory for the home and temporary files of a run; /var/tmp is used if the account cannot enter it
            (a state directory below a private home directory).
        deadline: seconds that one image may take.
        limits: what one image may use.

    Raises:
        UsageError: the account does not exist, or is root.
    """

    __test__ = False  # tells pytest that this is not a test class

    def __init__(
        self,
        account: str,
        scratch: Path,
        deadline: float = 120.0,
        *,
        limits: ResourceLimits = ResourceLimits(),  # noqa: B008 - an immutable value
    ) -> None:
        self._scratch = scratch
        self._deadline = deadline
        self._account = find_account(account, "images are tested as", "test_account") if os.geteuid() == 0 else None
        self._confinement = Confinement(limits, self._account)

    def test(self, image: Path, *, architecture: str, has_shell: bool) -> TestOutcome:
        """Run ``/bin/sh -c :`` in an image, or only check its structure, of which a sandbox has none.

        Args:
            image: the SIF, or the directory of the sandbox; the image's code cannot write to it.
            architecture: Go's name of the image's architecture.
            has_shell: the image has /bin/sh.

        Raises:
            TestRunError: Apptainer does not accept the image, or the image does not start within the deadline.
            UsageError: the account can enter neither the scratch directory nor /var/tmp.
        """
        if not has_shell:
            _log.warning("%s, so HTCondor's own test of it fails: jobs can use it only where that test is switched off", NO_SHELL)
            return self._check_structure(image, NO_SHELL)
        host = _ARCHITECTURES.get(platform.machine(), platform.machine())
        if architecture != host:
            return self._check_structure(image, f"built for {architecture}, this host is {host}")
        argv = ["apptainer", "--silent", "exec", "--containall", "--no-home", "--net", "--network", "none", "--pwd", "/"]
        self._run([*argv, "--security", f"seccomp:{_PROFILE}", _IMAGE, "/bin/sh", "-c", ":"], image, self._deadline)
        return TestOutcome("ran")

    def _check_structure(self, image: Path, reason: str) -> TestOutcome:
        _log.debug("%s is not run, only its structure is checked: %s", image, reason)
        if not image.is_dir():
            self._run(["apptainer", "--silent", "sif", "list", _IMAGE], image, _INSPECT_DEADLINE)
        return TestOutcome("structure", reason)

    def _run(self, argv: list[str], image: Path, deadline: float) -> None:
        """Run a command as the account, in a new home directory that has the image as :data:`_IMAGE`."""
        parent = self._find_parent()
        owners = {os.geteuid(), *([] if self._account is None else [self._account.uid])}
        _sweep_homes(parent, owners)
        with _new_home(parent, owners) as home:
            place = home / _IMAGE
            if image.is_dir():
                place.mkdir() if self._account is not None else place.symlink_to(image.resolve())
            else:
                _provide(image, place)
            (home / _PROFILE).write_text(make_profile())
            env = {"HOME": str(home), "TMPDIR": str(home), "APPTAINER_CONFIGDIR": f"{home}/config"}
            env |= {"APPTAINER_CACHEDIR": f"{home}/cache", "APPTAINER_TMPDIR": str(home)}
            env["GOMAXPROCS"] = "2"  # Apptainer's own threads count against the limits, and it starts one for each processor
            if self._account is not None:
                os.chown(home, self._account.uid, self._account.gid)
            try:
                shown = (image, place) if image.is_dir() and self._account is not None else None
                self._run_once_more_if_refused(argv, deadline, env, home, shown)
            except CommandError as error:
                hint = error.hint or f"a test run may use {self._confinement.limits}"
                form = "sandbox" if image.is_dir() else "SIF"
                raise TestRunError(f"the test run of the finished {form} failed: {error.reason}", hint=hint) from error

    def _run_once_more_if_refused(
        self, argv: list[str], deadline: float, env: dict[str, str], home: Path, shown: tuple[Path, Path] | None
    ) -> None:
        """Run a command; once more if the system refused it a process, because those of other test runs count as well.

        The limit is counted anew then, from the processes that the account has now. Raises CommandError.
        """
        try:
            self._confinement.run(argv, deadline=deadline, env=env, cwd=home, shown=shown)
        except CommandError as error:
            if not _NO_PROCESS.search(error.stderr):
                raise
            _log.info("the test run is repeated: the system refused it a process")
            self._confinement.run(argv, deadline=deadline, env=env, cwd=home, shown=shown)

    def _find_parent(self) -> Path:
        """Return the first directory that the account can enter, in which its home is made."""
        parent = first_enterable(self._account, (self._scratch, WORLD_WRITABLE))
        if parent is None:
            raise UsageError("the account that images are tested as can enter neither --state nor /var/tmp")
        return parent


@contextlib.contextmanager
def _new_home(parent: Path, owners: Collection[int]) -> Iterator[Path]:
    """Yield a new directory, locked by flock(2) as long as it is used, and delete it afterwards."""
    while True:
        home = Path(tempfile.mkdtemp(prefix=_HOME_PREFIX, dir=parent))
        with _locked(home, owners) as is_locked:
            if is_locked:
                yield home
                return


def _sweep_homes(parent: Path, owners: Collection[int]) -> None:
    """Delete the homes of killed runs: each has a copy of a SIF, or a link that keeps the space of a deleted one.

    ``parent`` can be a directory that everybody may write to: what belongs to none of the ``owners`` (user ids) stays.
    """
    for home in parent.glob(f"{_HOME_PREFIX}*"):
        with _locked(home, owners):
            pass  # a home that nobody else has locked is deleted at the end of the block


@contextlib.contextmanager
def _locked(home: Path, owners: Collection[int]) -> Iterator[bool]:
    """Try to lock a directory of one of the owners; yield whether this process locked it, and delete it afterwards if so."""
    try:
        descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # deleted, not a directory, or of another account
        yield False
        return
    try:
        status = os.fstat(descriptor)
        if status.st_uid in owners:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_locked = status.st_uid in owners and os.fstat(descriptor).st_nlink > 0
    except BlockingIOError:
        is_locked = False
    try:
        yield is_locked
    finally:
        if is_locked:
            with contextlib.suppress(OSError):  # the next run deletes what is left
                delete(home)
        os.close(descriptor)


def _provide(sif: Path, path: Path) -> None:
    """Make a SIF readable to all at another path: as a hard link, or as a copy on another device."""
    try:
        path.hardlink_to(sif)
    except OSError:
        shutil.copyfile(sif, path)
    path.chmod(0o644)
