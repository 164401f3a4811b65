"""The content store: ``sha256/<2>/<62>`` below one directory, for layers (with ``<62>.index`` beside them) and documents.

A blob appears under its name only when its bytes are on disk and its digest is right; what stands there is never changed.
Several processes may use one store: a digest is fetched by one of them at a time, under a lock that dies with its holder,
and what a killed one had received is continued by the next. The time of a blob is that of its last use.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.errors import BlobError, SpaceError
from publisher.layers.index import read_summary, write_index
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.registry.blobs.writer import BlobWriter
from publisher.system.durable import failures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection
    from pathlib import Path

    from publisher.oci import Descriptor
    from publisher.registry.blobs.writer import WrittenBlob

    Sink = Callable[[bytes], Awaitable[None]]
    Source = Callable[[Sink, int], Awaitable[None]]

_POLL = 0.1  # seconds between two looks at a lock that another task or process holds
_FREE = 64 << 20  # bytes that must stay free on the device


@dataclass(frozen=True)
class StoredLayer:
    """A verified layer and its header index, both on disk."""

    blob: Path
    index: Path


class BlobStore:
    """Blobs below ``root``, which is made where it is missing.

    Args:
        root: directory of the store.
        limits: what one layer may ask for.
        largest: bytes that one compressed layer may have.
        parallel: layers fetched at a time, over all images.
        patience: seconds to wait for another process that fetches the same layer.
        sleep: waits that many seconds.

    Raises:
        BlobError: the directory cannot be made.
        SpaceError: no room left.
    """

    def __init__(
        self,
        root: Path,
        *,
        limits: LayerLimits = DEFAULT_LIMITS,
        largest: int = 50 << 30,
        parallel: int = 4,
        patience: float = 6 * 3600,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._root = root
        self._limits = limits
        self._largest = largest
        self._places = asyncio.Semaphore(parallel)
        self._patience = patience
        self._sleep = sleep
        with failures(BlobError, f"{root} cannot be made"):
            for name in ("sha256", "partial", "locks"):
                (root / name).mkdir(parents=True, exist_ok=True)

    async def layer(self, descriptor: Descriptor, source: Source, progress: Callable[[int], None]) -> StoredLayer:
        """A layer and its index, fetched if it is not here.

        A blob that is what its digest says but no layer is kept, so that the next run need not fetch it to say so again.

        Args:
            descriptor: the layer.
            source: ``source(sink, offset)`` hands the blob's bytes from ``offset`` on to ``sink``.
            progress: told how many bytes of this layer are here, also when it falls back to 0.

        Raises:
            LayerError: not a sound tar archive, or beyond a limit.
            BlobError: the bytes are not what the digest says, twice; or too many.
            SpaceError: no room left.
            PublisherError: whatever ``source`` raises.
        """
        if descriptor.size > self._largest:
            raise BlobError(f"layer {descriptor.digest} has {descriptor.size} bytes, more than {self._largest} are allowed")
        blob = self._path(descriptor.digest)
        stored = StoredLayer(blob, blob.with_name(f"{blob.name}.index"))
        async with self._locked(descriptor.digest):
            if _size(blob) == descriptor.size:
                await asyncio.to_thread(self._ensure_index, stored)
            else:
                async with self._places:
                    await self._fetch(descriptor, stored, source, progress)
        progress(descriptor.size)
        return stored

    def document(self, digest: str) -> bytes | None:
        """A manifest, index or config, None where it is not here (a damaged one is deleted). Raises BlobError."""
        path = self._path(digest)
        with failures(BlobError, f"{path} cannot be read"):
            try:
                body = path.read_bytes()
            except FileNotFoundError:
                return None
            if "sha256:" + hashlib.sha256(body).hexdigest() != digest:
                path.unlink()
                return None
            os.utime(path)
            return body

    def put_document(self, digest: str, body: bytes) -> None:
        """Keep a manifest, index or config under its digest.

        Raises:
            BlobError: the body has another digest, or cannot be written.
            SpaceError: no room left.
        """
        if "sha256:" + hashlib.sha256(body).hexdigest() != digest:
            raise BlobError(f"{len(body)} bytes that should be {digest} are not")
        path = self._path(digest)
        with failures(BlobError, f"{path} cannot be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(str(path), body)

    def trim(self, limit: int, keep: Collection[str]) -> int:
        """Delete what was used longest ago until the store has at most ``limit`` bytes; broken transfers count too.

        Args:
            limit: bytes.
            keep: digests that stay whatever the limit, so that the store may remain larger than it.

        Returns:
            Bytes that were freed.

        Raises:
            BlobError: the store cannot be read or deleted from.
        """
        with failures(BlobError, f"{self._root} cannot be trimmed"):
            groups = sorted(self._all(), key=lambda group: group.used)
            total = sum(group.size for group in groups)
            freed = 0
            for group in groups:
                if total - freed <= limit:
                    break
                if group.digest not in keep and self._delete(group):
                    freed += group.size
            return freed

    # --- one layer

    async def _fetch(self, descriptor: Descriptor, stored: StoredLayer, source: Source, progress: Callable[[int], None]) -> None:
        """Twice at most: what an earlier, broken transfer left may be what is wrong."""
        try:
            await self._receive(descriptor, stored, source, progress)
        except BlobError:
            await self._receive(descriptor, stored, source, progress)

    async def _receive(
        self, descriptor: Descriptor, stored: StoredLayer, source: Source, progress: Callable[[int], None]
    ) -> None:
        partial = self._begin(descriptor)
        index = partial.with_name(f"{partial.name}.index")
        received = _size(partial) or 0
        progress(received)

        async def sink(chunk: bytes) -> None:
            nonlocal received
            received += len(chunk)
            if received > descriptor.size:
                raise BlobError(f"layer {descriptor.digest} came with more than its {descriptor.size} bytes")
            await arrival.put(chunk)
            progress(received)

        try:
            async with BlobWriter(partial, index, self._limits) as arrival:
                await source(sink, received)
                arrived = await arrival.finish()
            _check(arrived, descriptor)
        except (BlobError, SpaceError):
            partial.unlink(missing_ok=True)
            index.unlink(missing_ok=True)
            raise
        await asyncio.to_thread(_commit, partial, index, stored)
        if arrived.not_a_layer is not None:
            raise arrived.not_a_layer

    def _begin(self, descriptor: Descriptor) -> Path:
        """The file a layer arrives in, with what is there of it already and room for the rest."""
        name = descriptor.digest.removeprefix("sha256:")
        partial = self._root / "partial" / name
        with failures(BlobError, f"{partial} cannot be used"):
            for left_by_a_kill in partial.parent.glob(f".{name}.*"):
                left_by_a_kill.unlink()
            needed = descriptor.size - (_size(partial) or 0)
            free = shutil.disk_usage(self._root).free
        if free < needed + _FREE:
            reason = f"no room for a layer of {descriptor.size} bytes: {free} bytes are free in {self._root}"
            raise SpaceError(reason, hint="make room there and run again")
        return partial

    def _ensure_index(self, stored: StoredLayer) -> None:
        with failures(BlobError, f"{stored.blob} cannot be indexed"):
            os.utime(stored.blob)
            if read_summary(stored.index) is None:
                with stored.blob.open("rb") as blob:
                    write_index(blob.read, stored.index, self._limits)

    @contextlib.asynccontextmanager
    async def _locked(self, digest: str) -> AsyncIterator[None]:
        """One at a time for a digest (and the few others that share its lock), in all tasks and processes."""
        waited = 0.0
        with contextlib.ExitStack() as held:
            while not self._lock(digest, held):
                if waited >= self._patience:
                    raise BlobError(f"another process has been busy with {digest} for {waited:.0f} s")
                await self._sleep(_POLL)
                waited += _POLL
            yield

    def _lock(self, digest: str, held: contextlib.ExitStack) -> bool:
        path = self._root / "locks" / digest.removeprefix("sha256:")[:2]
        with failures(BlobError, f"{path} cannot be locked"):
            try:
                held.enter_context(files.locked(str(path), 0))
            except TimeoutError:
                return False
        return True

    # --- places

    def _path(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self._root / "sha256" / name[:2] / name[2:]

    def _all(self) -> list[_FetchGroup]:
        """Everything in the store, gathered by digest. Raises OSError."""
        found: dict[str, _FetchGroup] = {}
        directories = [("", self._root / "partial"), *((path.name, path) for path in (self._root / "sha256").iterdir())]
        for prefix, directory in directories:
            for path in directory.iterdir():
                digest = "sha256:" + prefix + path.name.removeprefix(".").partition(".")[0]
                group = found.setdefault(digest, _FetchGroup(digest))
                with contextlib.suppress(FileNotFoundError):  # another process has just finished or deleted it
                    group.add(path)
        return list(found.values())

    def _delete(self, group: _FetchGroup) -> bool:
        """Delete a digest's files, unless somebody is busy with it. Raises OSError."""
        with contextlib.ExitStack() as held:
            if not self._lock(group.digest, held):
                return False
            for path in group.paths:
                path.unlink(missing_ok=True)
            return True


class _FetchGroup:
    """All files of one digest: blob, index, what a broken transfer and killed processes left."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.paths: list[Path] = []
        self.size = 0
        self.used = 0.0

    def add(self, path: Path) -> None:
        """Raises OSError."""
        status = path.lstat()
        self.paths.append(path)
        self.size += status.st_size
        self.used = max(self.used, status.st_mtime)


def _size(path: Path) -> int | None:
    """Bytes of a file, None where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _check(arrived: WrittenBlob, descriptor: Descriptor) -> None:
    if (f"sha256:{arrived.sha256}", arrived.size) != (descriptor.digest, descriptor.size):
        reason = f"the {arrived.size} bytes that came for layer {descriptor.digest} of {descriptor.size} bytes are not that layer"
        raise BlobError(reason, hint="the registry, or something on the way to it, is damaged")


def _commit(partial: Path, index: Path, stored: StoredLayer) -> None:
    """Everything is on disk before the blob gets its name; a blob without index is indexed when it is next asked for."""
    with failures(BlobError, f"{stored.blob} cannot be made"):
        stored.blob.parent.mkdir(exist_ok=True)
        if index.exists():
            with index.open("rb") as file:
                os.fsync(file.fileno())
            index.replace(stored.index)
        partial.replace(stored.blob)
        files.sync_directory(str(stored.blob.parent))
