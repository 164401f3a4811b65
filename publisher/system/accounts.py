"""Unprivileged accounts for programs that handle strangers' bytes, when this program runs as root."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import UsageError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Iterable

WORLD_WRITABLE = Path("/var/tmp")  # noqa: S108 - directories with random names are made in it
"""Where the temporary files of an account go that cannot enter the state directory, such as one below a private home."""
_DEADLINE = 60  # seconds


def find_account(name: str, purpose: str, setting: str) -> command.UnixAccount:
    """Return an account that is not root.

    Args:
        name: its name.
        purpose: what it is for, to end "the account … that".
        setting: the setting that names it.

    Raises:
        UsageError: the account does not exist, or is root.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        hint = f"set {setting} to an unprivileged account"
        raise UsageError(f"the account {name!r} that {purpose} does not exist", hint=hint) from None
    if entry.pw_uid == 0:
        raise UsageError(f"the account that {purpose} must not be root", hint=f"set {setting} to an unprivileged account")
    return command.UnixAccount(entry.pw_uid, entry.pw_gid)


def exists(name: str) -> bool:
    """Return whether there is an account of this name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def first_enterable(account: command.UnixAccount | None, directories: Iterable[Path]) -> Path | None:
    """Return the first directory that an account can enter, None if it can enter none; the first one for this process's own."""
    for directory in directories:
        if account is None:
            return directory
        argv = ["test", "-x", str(directory)]
        if command.run(argv, deadline=_DEADLINE, account=account, accept=(0, 1)).status == 0:
            return directory
    return None
