"""Hides files of this host from a program that needs root's rights but handles a stranger's bytes.

The program runs in a mount namespace of its own, in which an empty file or directory covers each secret, and without the rights
to uncover it: of root's capabilities (capabilities(7)) it keeps those for owners, modes and attributes of files. It cannot read
this process's memory or open files either, because that needs CAP_SYS_PTRACE.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from publisher.errors import CommandError, UsageError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_NAMESPACE = ("unshare", "--mount", "--propagation", "private")
_KEPT = "-all,+chown,+dac_override,+fowner,+fsetid,+setfcap"
_SCRIPT = f"""\
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mount -t tmpfs -o size=4k,mode=0 none "$1" || exit
    elif [ -e "$1" ]; then mount --bind /dev/null "$1" || exit
    fi
    shift
done
shift
exec setpriv --no-new-privs --bounding-set={_KEPT} -- "$@"
"""
_PROBE_DEADLINE = 20.0


class Shield:
    """A way to run programs that cannot see some files.

    Args:
        secrets: files and directories to hide; those that do not exist are ignored.
    """

    def __init__(self, secrets: Iterable[Path] = ()) -> None:
        self._secrets = sorted({str(path.resolve()) for path in secrets})

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs ``argv`` without a view of the secrets.

        It is ``argv`` itself if there is no secret, or if this process is not root: then its programs have no more rights than
        itself.

        Raises:
            UsageError: this host allows no mount namespaces.
        """
        if not self._secrets or os.geteuid() != 0:
            return list(argv)
        self.check()
        return [*_NAMESPACE, "sh", "-c", _SCRIPT, "sh", *self._secrets, "--", *argv]

    def check(self) -> None:
        """Check that :meth:`wrap` can hide the secrets.

        Raises:
            UsageError: it would have to, and this host allows no mount namespaces, such as within some containers.
        """
        reason = _missing_namespaces() if self._secrets and os.geteuid() == 0 else ""
        if reason:
            raise UsageError(
                f"programs that make sandboxes as root could read {self._secrets[0]}, because this host allows no mount "
                f"namespaces: {reason}",
                hint="nothing was done; run as the owner of the repository, or allow mount namespaces (CAP_SYS_ADMIN)",
            )


@cache
def _missing_namespaces() -> str:
    """Return why this host has no mount namespaces; empty if it has."""
    try:
        command.run([*_NAMESPACE, "true"], deadline=_PROBE_DEADLINE)
    except CommandError as error:
        return error.reason
    return ""
