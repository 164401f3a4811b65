"""The user who runs the resolver and the images: an ordinary user, as on an execution point, even under root."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from publisher.errors import CommandError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ACCOUNT = "image-test"  # created by ci/install-system
_DEADLINE = 300  # seconds


class UnprivilegedUser:
    """An ordinary user who runs programs: the current user, or the test account if the current user is root.

    Args:
        homes: directory in which each account gets a home directory.
        needed: paths that the user must be able to read; if the test account cannot, root runs programs without its privileges.

    Attributes:
        name: name of the account.
        home: its home directory.
        root_reason: why the account is root, empty if it is not.
    """

    def __init__(self, homes: Path, needed: Sequence[Path]) -> None:
        self._account, self.root_reason = _ordinary_account(needed) if os.geteuid() == 0 else (None, "")
        self.name = pwd.getpwuid(os.geteuid() if self._account is None else self._account.uid).pw_name
        self.home = homes / self.name
        self.home.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(self.home, *((0, 0) if self._account is None else (self._account.uid, self._account.gid)))

    def run(self, argv: Sequence[str | Path]) -> str:
        """Run a program and return what it prints.

        Raises:
            CommandError: the program failed.
        """
        environment = {"HOME": str(self.home), "APPTAINER_CONFIGDIR": f"{self.home}/apptainer"}
        if os.geteuid() == 0 and self._account is None:
            environment["APPTAINER_NO_PRIVS"] = "1"
        result = command.run(list(map(str, argv)), deadline=_DEADLINE, env=environment, cwd=self.home, account=self._account)
        return result.stdout.decode("utf-8", "replace")


def _ordinary_account(needed: Sequence[Path]) -> tuple[command.UnixAccount | None, str]:
    """Return the test account; or None, with the reason why it cannot be used."""
    entry = pwd.getpwnam(_ACCOUNT)
    account = command.UnixAccount(entry.pw_uid, entry.pw_gid)
    for path in needed:
        try:
            command.run(["test", "-r", str(path)], deadline=_DEADLINE, account=account)
        except CommandError:
            return None, f"{_ACCOUNT} cannot read {path}"
    return account, ""
