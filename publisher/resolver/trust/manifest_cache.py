"""The last good copies of a repository's manifest, for the day when no place answers.

They stand in ``<cache>/manifest/<repository>`` under the names they have everywhere else, and are trusted no more than what
came over the network: an index is verified whenever it is used, a shard has its sha256 for a name.
"""

from __future__ import annotations

import os

from publisher.contract.errors import ManifestError
from publisher.contract.manifest import INDEX_NAME, MOST_INDEX_BYTES, MOST_SHARD_BYTES, Shard, shard_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class ManifestCache:
    """The copies in one directory, which is made when there is something to keep."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def make(self) -> None:
        """Make the directory. Raises OSError."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)

    def lock(self, what: str) -> str:
        """Path of the lock of who asks for something."""
        return os.path.join(self.directory, f"asking-{what}")

    def index(self) -> bytes | None:
        """The index that was the best when it was kept, None where there is none to read."""
        return self._read(INDEX_NAME, MOST_INDEX_BYTES)

    def shard(self, sha256: str) -> bytes | None:
        """A shard, None where there is none to read."""
        return self._read(shard_name(sha256), MOST_SHARD_BYTES)

    def shards(self) -> Iterator[Shard]:
        """All shards that are kept and can be read."""
        directory = os.path.join(self.directory, "shards")
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            sha256 = name.partition(".")[0]
            content = self.shard(sha256)
            if content is not None:
                try:
                    yield Shard.parse(content, sha256)
                except ManifestError:
                    continue

    def keep_index(self, content: bytes, shards: Iterable[str | None]) -> None:
        """Keep a verified index; of the shards kept so far, only those that it names stay. Raises OSError."""
        self._write(INDEX_NAME, content)
        named = {f"{sha256}.json" for sha256 in shards if sha256 is not None}
        directory = os.path.join(self.directory, "shards")
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            if name.endswith(".json") and name not in named:
                os.unlink(os.path.join(directory, name))

    def keep_shard(self, sha256: str, content: bytes) -> None:
        """Keep a verified shard. Raises OSError."""
        self._write(shard_name(sha256), content)

    def _read(self, name: str, most: int) -> bytes | None:
        try:
            with open(os.path.join(self.directory, name), "rb") as file:
                return file.read(most + 1)
        except OSError:
            return None

    def _write(self, name: str, content: bytes) -> None:
        from publisher.contract import files  # noqa: PLC0415 - a warm answer writes nothing

        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        files.replace(path, content)
