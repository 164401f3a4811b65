"""The process that makes an upload, as the upload's name identifies it, so that a later run can tell which uploads are dead."""

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

_CLOCK_SKEW = 600.0  # seconds by which the origin's clock may differ from ours
_UPLOAD_NAME = re.compile(r"(?P<host>[0-9a-f]{16})-(?P<boot>[0-9a-f]{8})-(?P<pid>[0-9]+)-(?P<start>[0-9]+)-[0-9a-f]{16}")


class UploadOwner(NamedTuple):
    """A process that makes uploads.

    Attributes:
        host: 16 hex that identify this host, or a container on it with process ids of its own.
        boot: 8 hex that identify the running kernel.
        pid: the process id.
        start: when the process was started, in ticks since the boot.
    """

    host: str
    boot: str
    pid: int
    start: int

    def new_upload_name(self) -> str:
        """Return a new, unique name for an upload of this process."""
        return f"{self.host}-{self.boot}-{self.pid}-{self.start}-{durable.token()}"

    def is_of_another_host(self, name: str) -> bool:
        """Return whether an upload's name says that another host than this one makes it."""
        match = _UPLOAD_NAME.fullmatch(name)
        return match is not None and match["host"] != self.host

    def knows_dead(self, name: str, modified: float | None) -> bool:
        """Return whether an upload is known to be of a process of this host that has ended.

        Args:
            name: the upload's name.
            modified: when it was last written to, in seconds since the epoch; None if the origin does not say. Two hosts made
                from one image look like one host; an upload of the other is newer than our boot as long as it is alive.
        """
        match = _UPLOAD_NAME.fullmatch(name)
        if match is None or match["host"] != self.host:
            return False
        if match["boot"] == self.boot:
            return _start_time(int(match["pid"])) != int(match["start"])
        return modified is not None and modified < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - _CLOCK_SKEW


def this_process() -> UploadOwner:
    """Return the owner that is this process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:8]
    return UploadOwner(_host_id(), boot, os.getpid(), _start_time(os.getpid()) or 0)


def _host_id() -> str:
    """Identify the host by machine-id(5), which containers and clones may share or lack, host name and PID namespace."""
    machine = ""
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_text().strip()
    identity = " ".join(["image-publisher", machine, socket.gethostname(), str(Path("/proc/self/ns/pid").readlink())])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _start_time(pid: int) -> int | None:
    """Return when a process was started (proc(5), /proc/PID/stat, field 22); None if there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None
