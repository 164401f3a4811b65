"""Who makes an upload, so that a later run can tell what is dead."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import time
from pathlib import Path
from typing import NamedTuple

from publisher.system import durable

_SKEW = 600.0  # seconds by which the origin's clock may be another than ours
_FORM = re.compile(r"(?P<host>[0-9a-f]{16})-(?P<boot>[0-9a-f]{8})-(?P<pid>[0-9]+)-(?P<start>[0-9]+)-[0-9a-f]{16}")


class UploadOwner(NamedTuple):
    """A process, as names of its uploads tell it.

    Attributes:
        host: 16 hex that stand for this host, or for a container on it: what has process ids of its own.
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
        return f"{self.host}-{self.boot}-{self.pid}-{self.start}-{durable.token()}"

    def knows_dead(self, name: str, modified: float | None) -> bool:
        """Whether an upload's name is of a process of this host that is gone.

        Args:
            name: the upload's.
            modified: when it was written to last, seconds since the epoch, None where the origin does not say. Of two hosts that
                were made from one image, and so think they are one, the other's is newer than our boot as long as it is alive.
        """
        found = _FORM.fullmatch(name)
        if found is None or found["host"] != self.host:
            return False
        if found["boot"] == self.boot:
            return _started(int(found["pid"])) != int(found["start"])
        return modified is not None and modified < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - _SKEW


def this_process() -> UploadOwner:
    """The process that runs this."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:8]
    return UploadOwner(_host(), boot, os.getpid(), _started(os.getpid()) or 0)


def _host() -> str:
    """Of machine-id(5), which containers and clones may share or lack, the host's name, and whose process ids are meant."""
    machine = ""
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_text().strip()
    identity = " ".join(["image-publisher", machine, socket.gethostname(), str(Path("/proc/self/ns/pid").readlink())])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _started(pid: int) -> int | None:
    """When a process was started (proc(5), /proc/PID/stat, field 22), None where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None
