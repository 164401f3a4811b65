"""Who runs the resolver and the images: an ordinary user, as on an execution point, also when root gives the tour."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from publisher.errors import CommandError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ACCOUNT = "image-test"  # made by ci/install-system
_DEADLINE = 300  # seconds


class Actor:
    """Runs programs as an ordinary user: this one, or the test account where this one is root.

    Args:
        homes: directory in which each account gets a home of its own.
        needed: paths that the user has to reach; where the test account cannot, root runs without its privileges.

    Attributes:
        name: of the account.
        home: its home.
        because: why it is root after all, empty where it is not.
    """

    def __init__(self, homes: Path, needed: Sequence[Path]) -> None:
        self._account, self.because = _ordinary(needed) if os.geteuid() == 0 else (None, "")
        self.name = pwd.getpwuid(os.geteuid() if self._account is None else self._account.uid).pw_name
        self.home = homes / self.name
        self.home.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(self.home, *((0, 0) if self._account is None else (self._account.uid, self._account.gid)))

    def run(self, argv: Sequence[str | Path]) -> str:
        """What a program prints.

        Raises:
            CommandError: it failed.
        """
        environment = {"HOME": str(self.home), "APPTAINER_CONFIGDIR": f"{self.home}/apptainer"}
        if os.geteuid() == 0 and self._account is None:
            environment["APPTAINER_NO_PRIVS"] = "1"
        done = command.run(list(map(str, argv)), deadline=_DEADLINE, env=environment, cwd=self.home, account=self._account)
        return done.stdout.decode("utf-8", "replace")


def _ordinary(needed: Sequence[Path]) -> tuple[command.UnixAccount | None, str]:
    """The test account; or none, and why not."""
    entry = pwd.getpwnam(_ACCOUNT)
    account = command.UnixAccount(entry.pw_uid, entry.pw_gid)
    for path in needed:
        try:
            command.run(["test", "-r", str(path)], deadline=_DEADLINE, account=account)
        except CommandError:
            return None, f"{_ACCOUNT} cannot reach {path}"
    return account, ""
