"""A client of a repository that opens every name again and again while something else changes the repository."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.machine import child_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cvmfs.real import RealCvmfs
    from tests.support.cvmfs.stand_in import FakeCvmfs

PROBE = "etc/motd"
"""A file that every image of these tests has."""


@dataclass
class Watched:
    """What a watcher saw.

    Attributes:
        rounds: how often it has looked at all names.
        broken: names that were there and did not open.
        appeared: names that were not there at first.
        vanished: names that were there and then no more.
    """

    rounds: int = 0
    broken: set[str] = field(default_factory=set)
    appeared: set[str] = field(default_factory=set)
    vanished: set[str] = field(default_factory=set)


@contextlib.contextmanager
def watching(cvmfs: FakeCvmfs | RealCvmfs, report: Path) -> Iterator[Watched]:
    """Watch the names that a client sees during the block, from another process; what it saw is there when the block has ended.

    A client follows the repository after some time, so it is waited for before the block and after it.
    """
    root = cvmfs.client
    cvmfs.wait_for_client()
    started, stop = os.pipe(), os.pipe()

    def watch() -> None:
        os.set_blocking(stop[0], False)
        seen, before = Watched(), _names(root)
        while True:
            present = {name for name in _names(root) if _opens(root / name, seen, name)}
            seen.appeared |= present - before
            seen.vanished |= before - present
            before = present
            seen.rounds += 1
            os.write(started[1], b".") if seen.rounds == 1 else None
            with contextlib.suppress(BlockingIOError):
                os.read(stop[0], 1)
                break
        values = {name: sorted(value) if isinstance(value, set) else value for name, value in vars(seen).items()}
        report.write_text(json.dumps(values))

    child = child_process.start(watch)
    os.read(started[0], 1)
    watched = Watched()
    try:
        yield watched
        cvmfs.wait_for_client()
    finally:
        os.write(stop[1], b".")
        status = child_process.end(child)
        for descriptor in (*started, *stop):
            os.close(descriptor)
    assert status == 0
    for name, value in json.loads(report.read_text()).items():
        setattr(watched, name, set(value) if isinstance(value, list) else value)


def _names(root: Path) -> set[str]:
    """Return the names of images, which are links in directories that do not begin with a dot."""
    found = set()
    for group in (entry for entry in os.scandir(root) if not entry.name.startswith(".") and entry.is_dir()):
        with contextlib.suppress(FileNotFoundError), os.scandir(group.path) as entries:
            found |= {f"{group.name}/{entry.name}" for entry in entries if entry.is_symlink()}
    return found


def _opens(link: Path, seen: Watched, name: str) -> bool:
    """Return whether a name is there; note it if it is and does not open."""
    while True:
        try:
            target = link.readlink()
        except FileNotFoundError:
            return False
        with contextlib.suppress(FileNotFoundError):
            (link / PROBE).read_bytes()
            return True
        with contextlib.suppress(FileNotFoundError):
            if link.readlink() == target:  # else it was replaced meanwhile
                seen.broken.add(name)
                return True
