"""The state directory's copy of the manifest that was published last, and the highest serial that was ever chosen.

A backup of the repository, and one of the origin, bring back an older manifest. The copy is a third place, beyond the reach of
both: a run continues from it, with all blocks. The serial is recorded before anybody can see its index, so that no two indexes
ever get it, even if the run is killed in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.contract import files, manifest
from publisher.errors import StateDirectoryError
from publisher.system.concurrent_calls import call_concurrently
from publisher.system.durable import failures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

_SERIAL_NAME = "serial"
_MAX_DIGITS = 19


class ManifestCopy:
    """The copy in a directory, which is created when something is stored."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, name: str) -> bytes | None:
        """Return a file of the manifest, ``index.json`` or a shard; None if the copy lacks it.

        Raises:
            StateDirectoryError: it cannot be read.
        """
        with self._failures(f"read {name}"):
            try:
                return (self._directory / name).read_bytes()
            except FileNotFoundError:
                return None

    def highest_serial(self) -> int:
        """Return the highest serial that was ever chosen, 0 if none is recorded.

        Raises:
            StateDirectoryError: the record cannot be read, or is no number.
        """
        text = (self.read(_SERIAL_NAME) or b"0").strip()
        if not text.isdigit() or len(text) > _MAX_DIGITS:
            raise StateDirectoryError(
                f"{self._directory / _SERIAL_NAME} is damaged",
                hint="write the highest serial into it that publisher status or an execution point has shown, and run again",
            )
        return int(text)

    def record_serial(self, serial: int) -> None:
        """Record, durably, that a serial was chosen. Raises StateDirectoryError or SpaceError."""
        with self._failures("record a serial"):
            self._directory.mkdir(parents=True, exist_ok=True)
            files.replace(str(self._directory / _SERIAL_NAME), b"%d\n" % serial)

    def save(self, shards: Mapping[str, bytes], index: bytes, names: set[str]) -> None:
        """Store a published revision: the shards first, the index last; then remove shards that it does not name.

        Args:
            shards: name -> content; those that the copy has already are not written again.
            index: the envelope.
            names: names of all shards of the revision.

        Raises:
            StateDirectoryError, SpaceError: it cannot be stored.
        """
        with self._failures("store the manifest"):
            directory = self._directory / "shards"
            directory.mkdir(parents=True, exist_ok=True)
            call_concurrently(self._store_shard, shards.items())
            files.replace(str(self._directory / manifest.INDEX_NAME), index)
            for path in directory.iterdir():
                if f"shards/{path.name}" not in names:
                    path.unlink()

    def _store_shard(self, shard: tuple[str, bytes]) -> None:
        name, content = shard
        path = self._directory / name
        if not path.exists():
            files.replace(str(path), content)

    def _failures(self, action: str) -> AbstractContextManager[None]:
        hint = "check the disk of the state directory, and run again"
        return failures(StateDirectoryError, f"the copy of the manifest in {self._directory}: cannot {action}", hint)
