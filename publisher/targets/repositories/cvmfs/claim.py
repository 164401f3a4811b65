"""What says that an open transaction is ours: written before it is opened, gone when it is over.

Only a transaction that a claim proves to be ours is ever aborted. The claim says that we were about to open one when none was
open; the tool's record (``Server.open``) says that it was opened, and by the flag file's inode and time which one that is. So
a transaction that somebody else opened meanwhile, or after an operator ended ours, is told apart.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from publisher.targets.repositories import note

if TYPE_CHECKING:
    from pathlib import Path

_RECORD = re.compile(rb"([0-9]{1,3})\n(?:([0-9]+ [0-9]+\.[0-9]{9})\n)?")
_KILLED = 128  # and above: how a shell says that a signal ended a program


@dataclass(frozen=True)
class TransactionClaim:
    """A transaction of ours.

    Attributes:
        repository: the FQRN.
        token: nothing else has it.
        pid: process that opened it.
        time: when, seconds since the epoch.
        revision: what was published before.
        clone: path of a tree that the transaction begins with, which is not published yet; None without one.
    """

    repository: str
    token: str
    pid: int
    time: int
    revision: int
    clone: str | None = None

    def save(self, path: Path) -> None:
        """Write the claim. Raises OSError."""
        note.save(path, asdict(self), mode=0o644)

    @classmethod
    def load(cls, path: Path) -> TransactionClaim | None:
        """The claim at ``path``, None where there is none.

        Raises:
            RepositoryError: what stands there is no claim of this program.
            OSError: it cannot be read.
        """
        return note.load(
            path,
            lambda values: cls(**values),
            "if `cvmfs_server list` shows a transaction that nobody else has opened, abort it; then remove the file",
        )


def recorded(record: Path) -> tuple[int | None, str | None]:
    """What a tool left behind that opened a transaction: its status, and the flag file's identity; None where it is not said.

    Of a tool that was killed it is not said: it may have opened one or not. Nor is it where the record is damaged.

    Raises OSError.
    """
    try:
        said = record.read_bytes()
    except FileNotFoundError:
        return None, None
    found = _RECORD.fullmatch(said)
    if found is None:
        return None, None
    status, identity = found.groups()
    return (int(status) if int(status) < _KILLED else None), None if identity is None else identity.decode()
