"""The blob store: ``sha256/<2>/<62>`` below one directory, for layers (with ``<62>.index`` beside them), SIFs and documents.

A blob gets its name only when its bytes are on disk and match its digest, and never changes afterwards. Several processes may use
one store: one of them at a time fetches a digest, under a lock that is released when its process ends, and resumes what a killed
process had received. The modification time of a blob is the time of its last use.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.contract import files
from publisher.contract.units import format_size
from publisher.errors import BlobError, SpaceError
from publisher.layers.index import read_summary, write_index
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.registry.blobs.copies import CopyWriter
from publisher.registry.blobs.writer import BlobWriter
from publisher.system.durable import failures
from publisher.system.ownership import is_own_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection
    from pathlib import Path

    from publisher.oci import Descriptor
    from publisher.registry.blobs.copies import CopyRoom
    from publisher.registry.blobs.writer import WrittenBlob

    Sink = Callable[[bytes], Awaitable[None]]
    Download = Callable[[Sink, int], Awaitable[None]]

_log = logging.getLogger(__name__)

_POLL_INTERVAL = 0.1  # seconds between two tries to get a lock that another task or process has
_RESERVED_SPACE = 64 << 20  # bytes that must stay free on the device


@dataclass(frozen=True)
class StoredLayer:
    """The files of a verified layer and its header index, which a SIF does not have."""

    blob: Path
    index: Path


class BlobStore:
    """The blobs below a directory, which is created if it does not exist.

    Args:
        root: the store's directory.
        limits: the limits on the content of a layer.
        max_layer_size: the largest size of a compressed layer in bytes.
        concurrency: layers that are fetched at the same time, over all images.
        copies: the room for uncompressed copies of what is fetched, which builds read; None to make none.
        lock_timeout: seconds to wait for another process that fetches the same layer.
        sleep: waits that many seconds.

    Raises:
        BlobError: the directory cannot be created.
        SpaceError: the device is full.
    """

    def __init__(
        self,
        root: Path,
        *,
        limits: LayerLimits = DEFAULT_LIMITS,
        max_layer_size: int = 50 << 30,
        concurrency: int = 4,
        copies: CopyRoom | None = None,
        lock_timeout: float = 6 * 3600,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._root = root
        self._limits = limits
        self._max_layer_size = max_layer_size
        self._slots = asyncio.Semaphore(concurrency)
        self._copies = copies
        self._lock_timeout = lock_timeout
        self._sleep = sleep
        with failures(BlobError, f"{root} cannot be created"):
            for name in ("sha256", "partial", "locks"):
                (root / name).mkdir(parents=True, exist_ok=True)

    @property
    def copies(self) -> Path | None:
        """Return the directory of the uncompressed copies, None if there are none."""
        return None if self._copies is None else self._copies.directory

    async def layer(self, descriptor: Descriptor, download: Download, progress: Callable[[int], None]) -> StoredLayer:
        """Return a layer and its index, or a SIF; fetch it if the store does not have it.

        A blob that matches its digest but is not a valid layer is stored too, so that the next run need not fetch it again to
        report it.

        Args:
            descriptor: the layer's digest and size.
            download: ``download(sink, offset)`` passes the blob's bytes from ``offset`` on to ``sink``.
            progress: receives the number of bytes of this layer that are stored; it falls back to 0 if the layer is fetched anew.

        Raises:
            LayerError: the layer is not a valid tar archive, or exceeds a limit.
            BlobError: the bytes do not match the digest, twice; or the layer is too large.
            SpaceError: the device is full.
            PublisherError: whatever ``download`` raises.
        """
        if descriptor.size > self._max_layer_size:
            size, limit = format_size(descriptor.size), format_size(self._max_layer_size)
            reason = f"{_kind(descriptor)} {descriptor.digest} has {size}; at most {limit} are allowed"
            raise BlobError(reason)
        blob = self._path(descriptor.digest)
        stored = StoredLayer(blob, blob.with_name(f"{blob.name}.index"))
        async with self._locked(descriptor.digest):
            if _size(blob) == descriptor.size and is_own_file(blob):  # its digest was checked when it was fetched
                await asyncio.to_thread(self._ensure_index, stored, needed=not descriptor.is_sif)
            else:
                async with self._slots:
                    await self._fetch(descriptor, stored, download, progress)
        progress(descriptor.size)
        return stored

    def document(self, digest: str) -> bytes | None:
        """Return an image manifest, index or config; None if the store does not have it. A damaged one is deleted.

        Raises:
            BlobError: the document cannot be read.
        """
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
        """Store an image manifest, index or config under its digest.

        Raises:
            BlobError: the body does not match the digest, or cannot be written.
            SpaceError: the device is full.
        """
        if "sha256:" + hashlib.sha256(body).hexdigest() != digest:
            raise BlobError(f"{len(body)} bytes do not match the digest {digest}")
        path = self._path(digest)
        with failures(BlobError, f"{path} cannot be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(str(path), body)

    def trim(self, limit: int, keep: Collection[str]) -> int:
        """Delete the least recently used blobs, interrupted transfers included, until the store has at most ``limit`` bytes.

        Uncompressed copies that no build has read are deleted before.

        Args:
            limit: bytes.
            keep: digests that are never deleted; the store may stay larger than the limit because of them.

        Returns:
            The number of bytes that were freed.

        Raises:
            BlobError: the store cannot be read, or a blob cannot be deleted.
        """
        with failures(BlobError, f"{self._root} cannot be trimmed"):
            if self._copies is not None:
                self._copies.clear()
            groups = sorted(self._file_groups(), key=lambda group: group.last_used)
            total = sum(group.size for group in groups)
            freed = 0
            for group in groups:
                if total - freed <= limit:
                    break
                if group.digest not in keep and self._delete(group):
                    freed += group.size
            return freed

    # --- one layer

    async def _fetch(
        self, descriptor: Descriptor, stored: StoredLayer, download: Download, progress: Callable[[int], None]
    ) -> None:
        """Fetch a layer; try a second time from the beginning, because bytes of an earlier transfer may be what is wrong."""
        try:
            await self._receive(descriptor, stored, download, progress)
        except BlobError as error:
            _log.info("fetching %s %s again: %s", _kind(descriptor), descriptor.digest, error.reason)
            await self._receive(descriptor, stored, download, progress)

    async def _receive(
        self, descriptor: Descriptor, stored: StoredLayer, download: Download, progress: Callable[[int], None]
    ) -> None:
        partial = self._prepare(descriptor)
        index = partial.with_name(f"{partial.name}.index")
        received = _size(partial) or 0
        progress(received)

        async def sink(chunk: bytes) -> None:
            nonlocal received
            received += len(chunk)
            if received > descriptor.size:
                raise BlobError(f"{_kind(descriptor)} {descriptor.digest} is larger than its {descriptor.size} bytes")
            await writer.put(chunk)
            progress(received)

        copy = None if self._copies is None or descriptor.is_sif else CopyWriter(stored.blob, self._copies)
        try:
            async with BlobWriter(partial, None if descriptor.is_sif else index, self._limits, copy) as writer:
                await download(sink, received)
                written = await writer.finish()
            _check(written, descriptor)
            await asyncio.to_thread(_commit, partial, index, stored)
            if written.layer_error is not None:
                raise written.layer_error
            if copy is not None:
                copy.finish()
        except (BlobError, SpaceError):
            partial.unlink(missing_ok=True)
            index.unlink(missing_ok=True)
            raise
        finally:
            if copy is not None:
                copy.give_up()

    def _prepare(self, descriptor: Descriptor) -> Path:
        """Return the file for a layer's bytes, which may have some already, after a check that the rest fits on the device."""
        name = descriptor.digest.removeprefix("sha256:")
        partial = self._root / "partial" / name
        with failures(BlobError, f"{partial} cannot be used"):
            for leftover in partial.parent.glob(f".{name}.*"):  # of a killed process
                leftover.unlink()
            if not is_own_file(partial):  # somebody who has it open could change it after its digest is checked
                partial.unlink(missing_ok=True)
            needed = descriptor.size - (_size(partial) or 0)
            free = shutil.disk_usage(self._root).free
        if free < needed + _RESERVED_SPACE:
            reason = (
                f"not enough space for a layer: {self._root} has {format_size(free)} free, and needs "
                f"{format_size(needed)} for it and a reserve of {format_size(_RESERVED_SPACE)}"
            )
            raise SpaceError(reason, hint="free space there and run again")
        return partial

    def _ensure_index(self, stored: StoredLayer, *, needed: bool) -> None:
        with failures(BlobError, f"{stored.blob} cannot be indexed"):
            os.utime(stored.blob)
            if needed and (not is_own_file(stored.index) or read_summary(stored.index) is None):
                with stored.blob.open("rb") as blob:
                    write_index(blob.read, stored.index, self._limits)

    @contextlib.asynccontextmanager
    async def _locked(self, digest: str) -> AsyncIterator[None]:
        """Hold the lock for a digest, which excludes all tasks and processes; a few other digests share it."""
        waited = 0.0
        with contextlib.ExitStack() as held:
            while not self._try_lock(digest, held):
                if waited >= self._lock_timeout:
                    raise BlobError(f"another process has held the lock for {digest} for {waited:.0f} s")
                await self._sleep(_POLL_INTERVAL)
                waited += _POLL_INTERVAL
            yield

    def _try_lock(self, digest: str, held: contextlib.ExitStack) -> bool:
        path = self._root / "locks" / digest.removeprefix("sha256:")[:2]
        with failures(BlobError, f"{path} cannot be locked"):
            try:
                held.enter_context(files.locked(str(path), 0))
            except TimeoutError:
                return False
        return True

    # --- files

    def _path(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self._root / "sha256" / name[:2] / name[2:]

    def _file_groups(self) -> list[_FileGroup]:
        """Return all files of the store, grouped by digest. Raises OSError."""
        groups: dict[str, _FileGroup] = {}
        directories = [("", self._root / "partial"), *((path.name, path) for path in (self._root / "sha256").iterdir())]
        for prefix, directory in directories:
            for path in directory.iterdir():
                digest = "sha256:" + prefix + path.name.removeprefix(".").partition(".")[0]
                group = groups.setdefault(digest, _FileGroup(digest))
                with contextlib.suppress(FileNotFoundError):  # another process has just renamed or deleted it
                    group.add(path)
        return list(groups.values())

    def _delete(self, group: _FileGroup) -> bool:
        """Delete a digest's files unless it is locked; return whether they were deleted. Raises OSError."""
        with contextlib.ExitStack() as held:
            if not self._try_lock(group.digest, held):
                return False
            for path in group.paths:
                path.unlink(missing_ok=True)
            return True


class _FileGroup:
    """All files of one digest: blob, index, and leftovers of interrupted transfers and killed processes.

    Attributes:
        digest: the digest.
        paths: the files.
        size: their total size in bytes.
        last_used: the time of the last use, in seconds since the epoch.
    """

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.paths: list[Path] = []
        self.size = 0
        self.last_used = 0.0

    def add(self, path: Path) -> None:
        """Add a file. Raises OSError."""
        status = path.lstat()
        self.paths.append(path)
        self.size += status.st_size
        self.last_used = max(self.last_used, status.st_mtime)


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes, None if it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _kind(descriptor: Descriptor) -> str:
    return "SIF" if descriptor.is_sif else "layer"


def _check(written: WrittenBlob, descriptor: Descriptor) -> None:
    if (f"sha256:{written.sha256}", written.size) != (descriptor.digest, descriptor.size):
        layer = f"{_kind(descriptor)} {descriptor.digest} of {descriptor.size} bytes"
        reason = f"the {written.size} bytes that were received for {layer} do not match its digest or size"
        raise BlobError(reason, hint="the image is damaged in the registry, or a proxy or mirror changes it")


def _commit(partial: Path, index: Path, stored: StoredLayer) -> None:
    """Rename a layer and its index, both on disk, to their final names; a layer without index is indexed at its next use."""
    with failures(BlobError, f"{stored.blob} cannot be created"):
        stored.blob.parent.mkdir(exist_ok=True)
        if index.exists():
            with index.open("rb") as file:
                os.fsync(file.fileno())
            index.replace(stored.index)
        partial.replace(stored.blob)
        files.sync_directory(str(stored.blob.parent))
