"""The chunk table of a published SIF, read from the origin and checked."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from publisher.chunks.comparison import difference
from publisher.contract.chunk_table import parse_chunk_table
from publisher.contract.errors import ChunkTableError
from publisher.errors import OriginError

if TYPE_CHECKING:
    from publisher.chunks.comparison import SifDifference
    from publisher.contract.chunk_table import ChunkTable
    from publisher.contract.records import Sif
    from publisher.targets.origins.base import Origin


def compare_sifs(origin: Origin, before: Sif | None, after: Sif | None) -> SifDifference | None:
    """Return what a host with one SIF needs for another one, by their chunk tables; None if one of them has no table.

    Raises:
        OriginError: a table is missing or damaged.
    """
    given, wanted = (None if sif is None else read_table(origin, sif) for sif in (before, after))
    return None if given is None or wanted is None else difference([given], wanted)


def read_table(origin: Origin, sif: Sif) -> ChunkTable | None:
    """Return the chunk table that the record of a SIF names; None if it names none.

    Raises:
        OriginError: the table is missing or damaged, or that of another SIF.
    """
    if sif.chunks is None:
        return None
    path = sif.chunks.path
    content = origin.read(path)
    if content is None:
        raise OriginError(f"the chunk table {path} is missing")
    if len(content) != sif.chunks.size or hashlib.sha256(content).hexdigest() != sif.chunks.sha256:
        raise OriginError(f"the chunk table {path} is damaged")
    try:
        table = parse_chunk_table(content)
    except ChunkTableError as error:
        raise OriginError(f"{path}: {error.reason}") from None
    if (table.sif_sha256, table.sif_size) != (sif.sha256, sif.size):
        raise OriginError(f"the chunk table {path} is that of another SIF")
    return table
