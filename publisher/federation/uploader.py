"""Who makes an upload, so that a later run can tell what is dead."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
from pathlib import Path
from typing import NamedTuple

from publisher import storage

_FORM = re.compile(r"(?P<host>[0-9a-f]{16})-(?P<boot>[0-9a-f]{8})-(?P<pid>[0-9]+)-(?P<start>[0-9]+)-[0-9a-f]{16}")


class Uploader(NamedTuple):
    """A process, as names of its uploads tell it.

    Attributes:
        host: 16 hex that stand for this host.
        boot: 8 hex that stand for its running kernel.
        pid: process id.
        start: when the process was started, in ticks since the boot.
    """

    host: str
    boot: str
    pid: int
    start: int

    def name(self) -> str:
        """For an upload."""
        return f"{self.host}-{self.boot}-{self.pid}-{self.start}-{storage.token()}"

    def knows_dead(self, name: str) -> bool:
        """Whether an upload's name is of a process of this host that is gone."""
        found = _FORM.fullmatch(name)
        if found is None or found["host"] != self.host:
            return False
        return found["boot"] != self.boot or _started(int(found["pid"])) != int(found["start"])


def this_process() -> Uploader:
    """The process that runs this."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:8]
    with contextlib.suppress(OSError):
        return Uploader(_short(Path("/etc/machine-id").read_text()), boot, os.getpid(), _started(os.getpid()) or 0)
    return Uploader(_short(socket.gethostname()), boot, os.getpid(), _started(os.getpid()) or 0)


def _short(identity: str) -> str:
    return hashlib.sha256(f"image-publisher {identity.strip()}".encode()).hexdigest()[:16]


def _started(pid: int) -> int | None:
    """When a process was started (proc(5), /proc/PID/stat, field 22), None where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None
