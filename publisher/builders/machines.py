"""What is remembered of the pool's machines: which must not build, and what each has built.

A machine that gave other bytes than this host is excluded until an operator removes it from the file. A machine whose programs
cannot give the same bytes, as it says itself, is left out for a day: somebody may update it.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from publisher.contract import files
from publisher.errors import StateDirectoryError
from publisher.system.durable import failures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DAY = 86400.0
_MAX_BUILDS = 2000  # names that are remembered of one machine


class MachineMemory:
    """The memory, in a JSON file; it may be used by several threads.

    Args:
        path: the file; no file means that nothing is known.
        now: returns seconds since the epoch.

    Raises:
        StateDirectoryError: the file cannot be read.
    """

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        document: dict[str, Any] = {}
        with failures(StateDirectoryError, f"{path} cannot be read"):
            if path.exists():
                try:
                    document = json.loads(path.read_bytes())
                except ValueError:
                    raise StateDirectoryError(f"{path} is not valid JSON", hint="correct it, or delete it") from None
        self._excluded: dict[str, str] = dict(document.get("excluded", {}))
        self._unsuitable: dict[str, float] = dict(document.get("unsuitable", {}))
        self._built: dict[str, list[str]] = dict(document.get("built", {}))

    def avoided(self) -> frozenset[str]:
        """Return the machines that must not build now."""
        with self._lock:
            recent = {machine for machine, since in self._unsuitable.items() if self._now() - since < _DAY}
            return frozenset(self._excluded.keys() | recent)

    def is_excluded(self, machine: str) -> bool:
        """Return whether a machine has given other bytes."""
        with self._lock:
            return machine in self._excluded

    def exclude(self, machine: str, reason: str) -> list[str]:
        """Exclude a machine; return the images that it built before, the newest last."""
        with self._lock:
            self._excluded.setdefault(machine, reason)
            self._save()
            return self._built.get(machine, [])

    def mark_unsuitable(self, machine: str) -> None:
        """Leave a machine out for a day."""
        with self._lock:
            self._unsuitable[machine] = self._now()
            self._save()

    def remember(self, machine: str, image: str) -> None:
        """Remember that a machine's SIF of an image was accepted."""
        with self._lock:
            self._built[machine] = [*self._built.get(machine, [])[-_MAX_BUILDS:], image]
            self._save()

    def _save(self) -> None:
        document = {"excluded": self._excluded, "unsuitable": self._unsuitable, "built": self._built}
        with failures(StateDirectoryError, f"{self._path} cannot be written"):
            files.replace(str(self._path), json.dumps(document, indent=1).encode(), 0o600)
