"""Hides files of this host from a program that needs root's rights but handles a stranger's bytes.

The program runs in a mount namespace of its own, in which an empty file or directory covers each secret, and without the rights
to uncover it: of root's capabilities (capabilities(7)) it keeps those for owners, modes and attributes of files. It cannot read
this process's memory or open files either, because that needs CAP_SYS_PTRACE.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import TYPE_CHECKING

from publisher.errors import CommandError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)
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

        It is ``argv`` itself if there is no secret, if this process is not root (then its programs have no more rights than
        itself), or on a host that allows no mount namespaces, such as within some containers.
        """
        if not self._secrets or os.geteuid() != 0 or not _has_namespaces():
            return list(argv)
        return [*_NAMESPACE, "sh", "-c", _SCRIPT, "sh", *self._secrets, "--", *argv]


@cache
def _has_namespaces() -> bool:
    try:
        command.run([*_NAMESPACE, "true"], deadline=_PROBE_DEADLINE)
    except CommandError as error:
        _log.warning(
            "programs that make sandboxes as root could read the signing key: this host has no mount namespaces: %s", error
        )
        return False
    return True
