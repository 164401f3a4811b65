"""What on this host a command of ``cvmfs_server`` may be waiting for, and what an operator does about it.

At the end of a publish the tool ends the client of the old revision and starts one for the new revision. A program that reads
there, or keeps a mount of it in a mount namespace of its own (a container does), keeps the old client alive: the tool then waits
without a word, or leaves a client that has not come up and holds the lock of the publish.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import RepositoryError
from publisher.targets.repositories.cvmfs.errors import repository_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.errors import PublisherError
    from publisher.targets.repositories.cvmfs.host import CvmfsHost

_log = logging.getLogger(__name__)
_CLIENT = "cvmfs2"
_MOST = 5  # obstacles in one line


class Obstacles:
    """The obstacles of the repository ``fqrn``."""

    def __init__(self, fqrn: str, host: CvmfsHost) -> None:
        self._fqrn = fqrn
        self._host = host

    def report(self, command: str, seconds: float, last_line: str) -> None:
        """Log that a command of the tool is still running, since how long, what it said last and what it may be waiting for."""
        state = f"repository {self._fqrn}: cvmfs_server {command} has been running for {seconds:.0f} s"
        state += f' and said last: "{last_line}"' if last_line else ""
        found = list(self.find())
        if not found:
            _log.info("%s", state)
            return
        more = f"; and {len(found) - _MOST} more" if len(found) > _MOST else ""
        _log.warning("%s; it may wait for %s%s. End these programs if they should not run", state, "; ".join(found[:_MOST]), more)

    def find(self) -> Iterator[str]:
        """Yield a line for each process that keeps the mounts of the repository in use."""
        places = [os.path.realpath(place) for place in (self._host.published, self._host.mount)]
        namespaces = {_namespace(Path("/proc/self"))}
        for process in sorted(_processes(), key=lambda process: int(process.name)):
            namespace = _namespace(process)
            if namespace is not None and namespace not in namespaces:
                namespaces.add(namespace)
                if any(place.endswith(tuple(places)) for place in _mount_points(process)):
                    yield f"{_describe(process)}, which has a mount of the repository in a mount namespace of its own"
                    continue
            if _name(process) != _CLIENT and not _is_of_tool(process):
                used = next(
                    (path for path in _used_paths(process) if f"{path}/".startswith(tuple(f"{one}/" for one in places))), None
                )
                if used is not None:
                    yield f"{_describe(process)}, which uses {used}"

    def explain(self, error: PublisherError) -> PublisherError:
        """Return an error that names who holds the lock of the publish, if that is what the tool's error is about."""
        if "is_publishing.lock" not in str(error) or not isinstance(error, RepositoryError):
            return error
        return self.locked() or error

    def locked(self) -> RepositoryError | None:
        """Return the error for the lock of a publish that a process holds; None if it is not known who does."""
        lock = os.path.realpath(self._host.publishing_lock)
        holders = [process for process in _processes() if lock in _used_paths(process)]
        client = next((process for process in holders if _name(process) == _CLIENT), None)
        if client is not None:
            kept = "; ".join(self.find()) or "none is seen"
            return repository_error(
                self._fqrn,
                f"{_describe(client)} holds {self._host.publishing_lock}: it is a client that cvmfs_server has started and that "
                "has not come up, and no publish is in progress",
                f"end the programs that keep an old mount ({kept}), then that client (kill {client.name}), and run again",
            )
        if holders:
            return repository_error(
                self._fqrn, f"{_describe(holders[0])} is publishing", "run again when it has ended; it was not touched"
            )
        return None


def _processes() -> Iterator[Path]:
    own = str(os.getpid())
    return (process for process in Path("/proc").iterdir() if process.name.isdigit() and process.name != own)


def _describe(process: Path) -> str:
    return f"process {process.name} ({_name(process) or 'ended'})"


def _name(process: Path) -> str:
    with contextlib.suppress(OSError):  # it has just ended
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _is_of_tool(process: Path) -> bool:
    return _name(process).startswith("cvmfs_")


def _namespace(process: Path) -> str | None:
    with contextlib.suppress(OSError):
        return os.readlink(process / "ns/mnt")  # noqa: PTH115 - not a path
    return None


def _mount_points(process: Path) -> list[str]:
    """Return where a process sees something mounted."""
    with contextlib.suppress(OSError):
        return [os.fsdecode(line.split(b" ")[4]) for line in (process / "mountinfo").read_bytes().splitlines()]
    return []


def _used_paths(process: Path) -> list[str]:
    """Return the paths of a process's open files and its working directory."""
    paths = []
    with contextlib.suppress(OSError):
        links = [process / "cwd", *(process / "fd").iterdir()]
        for link in links:
            with contextlib.suppress(OSError):
                paths.append(os.readlink(link))  # noqa: PTH115 - a text that need not be a path
    return paths
