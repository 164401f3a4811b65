"""Does it start? The finished SIF is run once, shut away: it is a stranger's code, and keys and tokens live on this host.

A separate unprivileged account, no network, nothing of the host's directories, an empty home, a deadline. What passes for
an image without a shell, or for another architecture than this host's, is the structure alone, and the record says so.
"""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher import command
from publisher.errors import CommandError, TestRunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}
_INSPECT_DEADLINE = 60  # seconds


@dataclass(frozen=True)
class Outcome:
    """``test`` as the record has it: ``ran`` or ``structure``; why, where it is only the structure."""

    test: str
    reason: str = ""


class TestRunner:
    """Runs finished SIFs.

    Args:
        account: name of the account they run as; used where this process may change to it (root), else its own is.
        scratch: an existing directory for the run's home and temporary files, that the account can reach.
        deadline: seconds one image may take.

    Raises:
        UsageError: no such account.
    """

    __test__ = False  # not a test class, whatever its name looks like to pytest

    def __init__(self, account: str, scratch: Path, deadline: float = 120.0) -> None:
        self._scratch = scratch
        self._deadline = deadline
        self._account = _account(account) if os.geteuid() == 0 else None

    def test(self, sif: Path, *, architecture: str, has_shell: bool) -> Outcome:
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
        with self._reachable(sif) as path:
            self._run([*argv, str(path), "/bin/sh", "-c", ":"], self._deadline)
        return Outcome("ran")

    @contextlib.contextmanager
    def _reachable(self, sif: Path) -> Iterator[Path]:
        """The SIF where the account can read it: a copy, where it lies in a directory closed to others."""
        try:
            command.run(["test", "-r", str(sif)], deadline=_INSPECT_DEADLINE, account=self._account)
        except CommandError:
            with tempfile.TemporaryDirectory(prefix="test-sif-", dir=self._scratch) as closed:
                Path(closed).chmod(0o711)
                copy = Path(closed) / "image.sif"
                shutil.copyfile(sif, copy)
                copy.chmod(0o644)
                yield copy
        else:
            yield sif

    def _structure(self, sif: Path, reason: str) -> Outcome:
        self._run(["apptainer", "--silent", "sif", "list", str(sif)], _INSPECT_DEADLINE)
        return Outcome("structure", reason)

    def _run(self, argv: list[str], deadline: float) -> None:
        home = Path(tempfile.mkdtemp(prefix="test-run-", dir=self._scratch))
        try:
            env = {"HOME": str(home), "TMPDIR": str(home), "APPTAINER_CONFIGDIR": f"{home}/config"}
            env |= {"APPTAINER_CACHEDIR": f"{home}/cache", "APPTAINER_TMPDIR": str(home)}
            if self._account is not None:
                os.chown(home, self._account.uid, self._account.gid)
            command.run(argv, deadline=deadline, env=env, cwd=home, account=self._account)
        except CommandError as error:
            raise TestRunError(f"the test run of the finished SIF failed: {error.reason}", hint=error.hint) from error
        finally:
            shutil.rmtree(home, ignore_errors=True)


def _account(name: str) -> command.Account:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(
            f"there is no account {name!r} to test images as", hint="set test_account to an unprivileged one"
        ) from None
    if entry.pw_uid == 0:
        raise UsageError("images are not tested as root", hint="set test_account to an unprivileged account")
    return command.Account(entry.pw_uid, entry.pw_gid)
