"""Chunk tables on this host: beside each SIF of a cache lies its table, as the origin has it.

The table of a wanted SIF is checked by the sha256 in the signed manifest, each time it is read. The table of a seed is
believed: if it is wrong, so is what is copied, and the sha256 of the wanted SIF shows that.
"""

from __future__ import annotations

import hashlib
import os
import time

from publisher.contract.chunk_table import MAX_TABLE_BYTES, parse_chunk_table
from publisher.contract.errors import ChunkTableError
from publisher.resolver.errors import CorruptError, FetchError
from publisher.resolver.system import log
from publisher.resolver.transfer.watchdog import TransferDeadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.contract.chunk_table import ChunkTable
    from publisher.contract.records import Chunks, Sif
    from publisher.resolver.transfer.fetch import Traffic
    from publisher.resolver.transfer.sources import Source

_MAX_SHARE = 1 / 100  # of the SIF, for its table: a larger one is not worth its bytes
_MIN_LIMIT = 4096  # bytes that any table may have
_TIMEOUT = 10.0  # seconds for all servers together: without a table the SIF is fetched as a whole
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def ensure(sif: Sif, path: str, sources: Sequence[Source], until: float, traffic: Traffic) -> ChunkTable | None:
    """Return the table of a SIF from this host, or fetch and keep it; None if there is none that can be used.

    Args:
        sif: the SIF.
        path: where the table is kept.
        sources: where to fetch it from, in order of preference.
        until: reading of the monotonic clock at which the SIF must be there.
        traffic: counts the bytes that are received.

    Raises:
        OSError: the table cannot be written.
    """
    chunks = sif.chunks
    if chunks is None or chunks.size > min(MAX_TABLE_BYTES, max(_MIN_LIMIT, sif.size * _MAX_SHARE)):
        return None
    content = _read(path, chunks.size)
    if content is None or hashlib.sha256(content).hexdigest() != chunks.sha256:
        content = _fetch(chunks, sources, min(until, time.monotonic() + _TIMEOUT), traffic)
        if content is None:
            return None
        with open(path, "wb", opener=_create) as file:
            file.write(content)
    try:
        table = parse_chunk_table(content)
    except ChunkTableError as error:
        log.warning(f"{sif.path} is fetched as a whole: {error}")
        return None
    if (table.sif_sha256, table.sif_size) != (sif.sha256, sif.size):
        log.warning(f"{sif.path} is fetched as a whole: its chunk table is that of another SIF")
        return None
    return table


def read(path: str, *, checked: bool = True) -> ChunkTable | None:
    """Return the table of a SIF that this host has, None without one that can be used; ``checked`` as for the parser."""
    try:
        content = _read(path, MAX_TABLE_BYTES)
        return None if content is None else parse_chunk_table(content, checked=checked)
    except ChunkTableError as error:
        log.info("%s: %s", path, error)
        return None


def _read(path: str, limit: int) -> bytes | None:
    """Return the content of a file of at most ``limit`` bytes; None if it cannot be read."""
    try:
        with open(os.open(path, _READ), "rb", buffering=0) as file:
            content = file.read(limit + 1)
    except OSError:
        return None
    return content if content is not None and len(content) <= limit else None


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def _fetch(chunks: Chunks, sources: Sequence[Source], until: float, traffic: Traffic) -> bytes | None:
    """Return the content of a table from the first route that has it; None if none has."""
    for source in sources:
        for route in source.routes(chunks.path, small=True, until=until):
            deadline = TransferDeadline(time.monotonic, until)
            try:
                return _fetch_from(route, chunks, deadline, traffic)
            except FetchError as error:
                log.info("%s failed: %s", route.label, error)
            if deadline.left() < 0:
                return None
    return None


def _fetch_from(route: Source, chunks: Chunks, deadline: TransferDeadline, traffic: Traffic) -> bytes:
    content = b""
    for piece in route.stream(chunks.path, 0, chunks.size, deadline):
        content += piece
        traffic.received += len(piece)
        if len(content) > chunks.size:
            break
    if hashlib.sha256(content).hexdigest() != chunks.sha256:
        raise CorruptError(f"{chunks.path}: the content does not match its sha256 in the manifest")
    return content
