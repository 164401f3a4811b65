"""The claim by which a transaction is known to be ours: written before the transaction is opened, removed when it is over.

Only a transaction that is proven to be ours is ever aborted. The claim says that we were about to open a transaction when none
was open. The record that the tool leaves (:meth:`publisher.targets.repositories.cvmfs.server.CvmfsServer.open`) says that it was
opened, and identifies it by the inode and time of the flag file; for an ingest, which opens and closes its transaction itself, we
write that record as soon as the tool reads our stream. So a transaction that somebody else opened meanwhile, or after
an operator ended ours, is never mistaken for ours.

We write in a transaction only when its record is on disk. So one without a record in which something was written is somebody
else's; and one in which nothing was written, and that a reboot has cut off from whoever opened it, can be aborted without a loss.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from publisher.contract import files
from publisher.targets.repositories.cvmfs.ingested_tree import NOTE_NAME
from publisher.targets.repositories.cvmfs.mounts.mount_gate import MountGate
from publisher.targets.repositories.cvmfs.mounts.mount_repair import BOOT_NAME
from publisher.targets.repositories.durable_record import DurableRecord
from publisher.targets.repositories.lock import RUN_LOCK

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.targets.repositories.cvmfs.host import CvmfsHost

_RECORD = re.compile(rb"([0-9]{1,3})\n(?:([0-9]+ [0-9]+\.[0-9]{9})\n)?")
_KILLED = 128  # and above: the exit status by which a shell reports that a signal ended a program


@dataclass(frozen=True)
class TransactionClaim(DurableRecord):
    """The record of a transaction of ours.

    Attributes:
        repository: the FQRN.
        token: a random text that identifies the transaction.
        pid: the process that opened it.
        time: when, in seconds since the epoch.
        revision: the published repository revision before it.
        clone: the path of a tree that the transaction begins with, which is not published yet; None if there is none.
        boot: identifies the boot of the host in which it was written.
    """

    FILE_MODE: ClassVar[int] = 0o644
    DAMAGED_HINT: ClassVar[str] = (
        "if `cvmfs_server list` shows a transaction that nobody else has opened, abort it; then remove the file"
    )

    repository: str
    token: str
    pid: int
    time: int
    revision: int
    clone: str | None = None
    boot: str = ""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Make a claim from its JSON object."""
        return cls(**values)


class ClaimFile:
    """The claim of a repository and the tool's record beside it.

    Attributes:
        path: the file of the claim.
        record: the file of the tool's record.
    """

    def __init__(self, area: Path, host: CvmfsHost) -> None:
        self.path = area / "claim"
        self.record = area / "opened"
        self._area = area
        self._host = host

    def load(self) -> TransactionClaim | None:
        """Read the claim; return None if there is none. Raises RepositoryError, OSError."""
        return TransactionClaim.load(self.path)

    def save(self, claim: TransactionClaim) -> None:
        """Write the claim, after removing an old record. Raises OSError."""
        self.record.unlink(missing_ok=True)
        claim.save(self.path)

    def record_opened(self) -> None:
        """Write the record of a transaction that the tool has opened for us and goes on with. Raises OSError."""
        opened = self._host.open_transaction()
        if opened is not None:
            files.replace(str(self.record), f"0\n{opened}\n".encode())

    def is_ours(self) -> bool:
        """Return whether the open transaction is proven to be ours. Raises RepositoryError, OSError."""
        opened = self._host.open_transaction()
        if opened is None:
            return False
        if self.record.exists():
            status, identity = read_record(self.record)
            was_opened = status == 0 or (status is not None and status >= _KILLED and not self._host.has_changes())
            return was_opened and identity == opened
        return self._is_after_reboot() and self._host.is_open_since_before_boot() and not self._host.has_changes()

    def is_undecided(self) -> bool:
        """Return whether a transaction is open, and may be ours or somebody else's. Raises RepositoryError, OSError."""
        if self._host.open_transaction() is None or self.is_ours():
            return False
        if self.record.exists():
            return read_record(self.record)[0] is None
        return not self._is_after_reboot() and not self._host.has_changes()

    def _is_after_reboot(self) -> bool:
        claim = self.load()
        return claim is not None and claim.boot not in ("", self._host.boot())

    def release(self) -> None:
        """Remove the claim, unless the transaction is open, or may be. Raises OSError."""
        if self.is_undecided() or self.is_ours():
            return
        self.path.unlink(missing_ok=True)
        self.sweep()

    def sweep(self) -> None:
        """Remove what nothing claims, half-written files of killed runs included. Raises OSError."""
        for path in self._area.iterdir():
            if path.name not in ("lock", RUN_LOCK, BOOT_NAME, NOTE_NAME, *MountGate.NAMES):
                path.unlink()


def read_record(record: Path) -> tuple[int | None, str | None]:
    """Read the record of the tool that was to open a transaction.

    Returns:
        The tool's exit status, 128 and above if a signal ended it, and the identity of the flag file, None if there was none.
        Both are None if the record is missing or damaged.

    Raises:
        OSError: the record cannot be read.
    """
    try:
        content = record.read_bytes()
    except FileNotFoundError:
        return None, None
    match = _RECORD.fullmatch(content)
    if match is None:
        return None, None
    status, identity = match.groups()
    return int(status), None if identity is None else identity.decode()
