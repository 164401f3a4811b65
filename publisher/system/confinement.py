"""Runs a stranger's program within limits: of memory, processes, file size and CPU time.

Limits of resources (setrlimit(2)) hold everywhere, for each process or account. Where systemd manages the host, and this process
may ask it, the program also gets a scope (systemd.scope(5)): a cgroup that limits all its processes together.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import CommandError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from publisher.system.command import CompletedCommand, UnixAccount

_SYSTEMD = Path("/run/systemd/system")
"""A directory that exists where systemd manages the host (sd_booted(3))."""
_ADDRESSES = 3 << 29
"""Bytes of address space that a program may have beside its memory: Apptainer's runtime (Go) reserves up to a GiB."""
_PROBE_DEADLINE = 20
_NAMESPACE = ("unshare", "--mount", "--propagation", "private")
_SHOW = 'mount --bind "$1" "$2" && mount -o remount,bind,ro,nosuid,nodev "$2" && shift 2 && exec "$@"'


@dataclass(frozen=True)
class ResourceLimits:
    """What a program may use.

    Attributes:
        memory: bytes, of all its processes in a scope, otherwise of each.
        processes: number of processes and threads.
        file_size: bytes of the largest file that it may write.
        cpu: seconds of CPU time of each process.
    """

    memory: int = 512 << 20
    processes: int = 128
    file_size: int = 32 << 20
    cpu: int = 30

    def __str__(self) -> str:
        sizes = f"{self.memory >> 20} MiB of memory, {self.processes} processes, files of {self.file_size >> 20} MiB"
        return f"{sizes} and {self.cpu} s of CPU time"


class Confinement:
    """A way to run programs within limits.

    Args:
        limits: the limits.
        account: the account that the programs run as, None for this process's own.
        systemd: a directory that exists where systemd manages the host.
    """

    def __init__(self, limits: ResourceLimits, account: UnixAccount | None, systemd: Path = _SYSTEMD) -> None:
        self.limits = limits
        self._account = account
        self._scope = _scope(limits) if systemd.is_dir() and os.geteuid() == 0 and _can_make_scopes() else []

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: float,
        env: Mapping[str, str],
        cwd: Path,
        shown: tuple[Path, Path] | None = None,
    ) -> CompletedCommand:
        """Run a program as :func:`publisher.system.command.run` does, within the limits.

        Args:
            argv: program and arguments.
            deadline: seconds.
            env: variables that are added to the allowed ones.
            cwd: working directory.
            shown: a directory that the account may be unable to enter, and the directory at which the program sees it, for
                reading only (needs root).

        Raises:
            CommandError: as there.
        """
        name = argv[0]
        limited = [*self._rlimits(), *argv]
        if not self._scope and shown is None:
            return command.run(limited, deadline=deadline, env=env, cwd=cwd, account=self._account, name=name)
        if self._account is not None:  # only root may ask for a scope or mount, so the account is changed inside of that
            change = ["setpriv", f"--reuid={self._account.uid}", f"--regid={self._account.gid}", "--clear-groups"]
            limited = [*change, *limited]
        if shown is not None:
            limited = [*_NAMESPACE, "sh", "-c", _SHOW, "sh", *map(str, shown), *limited]
        return command.run([*self._scope, *limited], deadline=deadline, env=env, cwd=cwd, name=name)

    def _rlimits(self) -> list[str]:
        """Return a command prefix that sets the limits; prlimit(1) sets them in the new process, where no other thread runs."""
        limits = self.limits
        uid = os.geteuid() if self._account is None else self._account.uid
        wanted = {
            "data": (resource.RLIMIT_DATA, limits.memory),
            "as": (resource.RLIMIT_AS, limits.memory + _ADDRESSES),  # bounds shared memory, which "data" does not count
            "nproc": (resource.RLIMIT_NPROC, limits.processes + _count_tasks(uid)),  # the kernel counts the whole account
            "fsize": (resource.RLIMIT_FSIZE, limits.file_size),
            "cpu": (resource.RLIMIT_CPU, limits.cpu),
            "core": (resource.RLIMIT_CORE, 0),
        }
        return ["prlimit", *(f"--{name}={_at_most(kind, value)}" for name, (kind, value) in wanted.items()), "--"]


def _at_most(kind: int, value: int) -> int:
    """Return a value, or this process's own hard limit if that is lower: raising it needs a privilege."""
    hard = resource.getrlimit(kind)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _count_tasks(uid: int) -> int:
    """Return the number of an account's threads on this host."""
    count = 0
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and process.stat().st_uid == uid:
                count += len(os.listdir(process / "task"))  # noqa: PTH208 - only their number counts
        except OSError:  # it has just ended
            continue
    return count


def _scope(limits: ResourceLimits) -> list[str]:
    properties = {"MemoryMax": limits.memory, "MemorySwapMax": 0, "TasksMax": limits.processes}
    return [
        "systemd-run",
        "--scope",
        "--quiet",
        "--collect",
        *(f"--property={name}={value}" for name, value in properties.items()),
    ]


def _can_make_scopes() -> bool:
    try:
        command.run(["systemd-run", "--scope", "--quiet", "--collect", "true"], deadline=_PROBE_DEADLINE)
    except CommandError:
        return False
    return True
