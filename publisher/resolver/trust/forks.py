"""Forks of the manifest: an index that does not continue the one that this host remembers.

Each index names its predecessors. If the one that a host remembers (its cached copy) is not among those of an index with a higher
serial, two publishers have gone on from one point: a backup was restored, or somebody else has the key. A host that sees it
records that beside its cached copy, with the index that it remembered as a proof, until the file is removed.
"""

from __future__ import annotations

from publisher.contract.manifest import payload_sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.contract.manifest import Index


def describe(remembered: Index, copy: bytes, index: Index, content: bytes, label: str) -> str:
    """Return what is wrong with an index that does not continue the remembered one; empty if it does, or if nobody can know.

    Args:
        remembered: the index that this host remembers.
        copy: its envelope.
        index: an index with the same or a higher serial.
        content: its envelope.
        label: where it came from.
    """
    sha256 = payload_sha256(copy)
    is_same = payload_sha256(content) == sha256
    if is_same or (index.serial > remembered.serial and index.descends_from(remembered, sha256) is not False):
        return ""
    return (
        f"the manifest has forked: serial {index.serial} from {label} does not continue serial {remembered.serial}, "
        f"which this host remembers (sha256 {sha256[:16]})"
    )
