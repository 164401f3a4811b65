"""The tree policy: which names of a flattened image are not published."""

from __future__ import annotations

WHITEOUT = b".wh."
"""The prefix of the names of whiteouts (OCI image specification, layer.md)."""
EXPANDED_LINKS = "links with $(, which clients of CVMFS expand"
"""Why a link is counted although it is published: CVMFS clients expand ``$(`` in its target, readers of a SIF do not."""


def reason_to_drop(name: bytes, *, is_device: bool) -> str | None:
    """Return why a name, the last component of a path, is not published; None where it is published."""
    return "device nodes" if is_device else reserved(name)


def reserved(name: bytes) -> str | None:
    """Return why a name is reserved, None where it is not."""
    if name.startswith(b".cvmfs"):
        return "names that CVMFS reserves"
    if name.startswith(WHITEOUT):
        return "names of whiteouts"
    return None
