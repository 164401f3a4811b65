"""Cached copies of a repository's manifest, for the time when no source answers.

They are in ``<cache>/manifest/<repository>`` under their usual names, and are trusted no more than what comes over the network:
an index is verified at each use, and the name of a shard is its sha256. Only the records that were cut out of a shard are taken
as they were checked then, like the signatures of :mod:`publisher.resolver.trust.signature_cache`: to read and hash a shard of
100,000 images takes a tenth of the time of a warm answer.
"""

from __future__ import annotations

import os

from publisher.contract import quickjson
from publisher.contract.errors import ManifestError
from publisher.contract.manifest import INDEX_NAME, MAX_INDEX_BYTES, MAX_SHARD_BYTES, Shard, canonical, shard_name
from publisher.contract.quickhash import sha256 as sha256_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_FORK_NAME, _MAX_FORK_BYTES = "fork", 1000
_KEYS_NAME = "keys.json"
_RECORDS, _MAX_RECORD_BYTES = "records", 1 << 20


class ManifestCache:
    """The cached manifest in one directory, which is created when something is stored."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def make(self) -> None:
        """Create the directory. Raise OSError."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)

    def lock(self, name: str) -> str:
        """Return the path of the lock of the process that fetches ``name``."""
        return os.path.join(self.directory, f"asking-{name}")

    def index(self) -> bytes | None:
        """Return the cached index, the best one when it was stored, or None if there is none."""
        return self._read(INDEX_NAME, MAX_INDEX_BYTES)

    def keys(self) -> bytes | None:
        """Return the cached keys document, in an envelope without an index; None if there is none."""
        return self._read(_KEYS_NAME, MAX_INDEX_BYTES)

    def shard(self, sha256: str) -> bytes | None:
        """Return the content of a cached shard, or None if there is none."""
        return self._read(shard_name(sha256), MAX_SHARD_BYTES)

    def record(self, sha256: str, name: str) -> dict[str, Any] | None:
        """Return the record of a name as :meth:`store_record` got it for this shard, None if there is none or it is damaged."""
        content = self._read(_record_name(sha256, name), _MAX_RECORD_BYTES) or b""
        digest, _, text = content.partition(b"\n")
        return quickjson.loads(text) if digest == sha256_of(text).hexdigest().encode() else None

    def shards(self) -> Iterator[Shard]:
        """Yield all cached shards that are valid."""
        for name in self._files("shards"):
            sha256 = name.partition(".")[0]
            content = self.shard(sha256)
            if content is not None:
                try:
                    yield Shard.parse(content, sha256)
                except ManifestError:
                    continue

    def store_index(self, content: bytes, shards: Iterable[str | None]) -> None:
        """Store a verified index, and remove the cached shards that it does not list, and their records.

        Args:
            content: the bytes of the index.
            shards: the sha256 of each of its shards, None for an empty one.

        Raises:
            OSError: the cache cannot be written.
        """
        self._write(INDEX_NAME, content)
        listed = {sha256 for sha256 in shards if sha256 is not None}
        for name in self._files("shards"):
            if name.endswith(".json") and name.partition(".")[0] not in listed:
                os.unlink(os.path.join(self.directory, "shards", name))
        for name in self._files(_RECORDS):
            if name.partition("-")[0] not in listed:
                os.unlink(os.path.join(self.directory, _RECORDS, name))

    def fork(self) -> str:
        """Return what is recorded of a fork of the manifest, empty if nothing is."""
        return (self._read(_FORK_NAME, _MAX_FORK_BYTES) or b"").decode("utf-8", "replace").strip()

    def record_fork(self, text: str, copy: bytes) -> None:
        """Record a fork, and the index that this host remembered; the first one stays until its file is removed.

        Raises:
            OSError: the cache cannot be written.
        """
        if not self.fork():
            self._write(f"{_FORK_NAME}-{INDEX_NAME}", copy)
            self._write(_FORK_NAME, f"{text}\n".encode())

    def store_keys(self, content: bytes) -> None:
        """Store a verified keys document, as :meth:`keys` returns it. Raise OSError."""
        self._write(_KEYS_NAME, content)

    def store_shard(self, sha256: str, content: bytes) -> None:
        """Store a verified shard. Raise OSError."""
        self._write(shard_name(sha256), content)

    def store_record(self, sha256: str, name: str, record: dict[str, Any]) -> None:
        """Store the record of a name from the verified shard with this sha256. Raise OSError."""
        text = canonical(record)
        self._write(_record_name(sha256, name), sha256_of(text).hexdigest().encode() + b"\n" + text)

    def _files(self, part: str) -> list[str]:
        """Return the names of the files in a directory of the cache."""
        directory = os.path.join(self.directory, part)
        return os.listdir(directory) if os.path.isdir(directory) else []

    def _read(self, name: str, max_bytes: int) -> bytes | None:
        """Return a file's content, with one byte more than allowed if it is too large, or None if it cannot be read."""
        try:
            with open(os.path.join(self.directory, name), "rb") as file:
                return file.read(max_bytes + 1)
        except OSError:
            return None

    def _write(self, name: str, content: bytes) -> None:
        from publisher.contract import files  # noqa: PLC0415 - a warm answer writes nothing

        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        files.replace(path, content)


def _record_name(sha256: str, name: str) -> str:
    """Return the path of the record of a name from a shard, below the cache's directory."""
    return f"{_RECORDS}/{sha256}-{sha256_of(name.encode()).hexdigest()}"
