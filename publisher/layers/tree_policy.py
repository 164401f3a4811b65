"""The tree policy: which names of a flattened image are not published."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

WHITEOUT = b".wh."
"""The prefix of the names of whiteouts (OCI image specification, layer.md)."""
EXPANDED_LINKS = "links with $(, which clients of CVMFS expand"
"""Why a link is counted although it is published: CVMFS clients expand ``$(`` in its target, readers of a SIF do not."""


def reason_to_drop(name: bytes, entry: int | None, devices: Collection[int]) -> str | None:
    """Return why a name is not published, None where it is published.

    Args:
        name: the last component of the path.
        entry: ``layer << 32 | ordinal``, None for a directory.
        devices: the entries that are device nodes.
    """
    if entry is not None and entry in devices:
        return "device nodes"
    return reserved(name)


def reserved(name: bytes) -> str | None:
    """Return why a name is reserved, None where it is not."""
    if name.startswith(b".cvmfs"):
        return "names that CVMFS reserves"
    if name.startswith(WHITEOUT):
        return "names of whiteouts"
    return None
