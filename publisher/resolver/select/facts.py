"""What was measured of this host: one small JSON file, written by ``pilot-start`` and a startd cron, read by the hook.

    {"schema": 1, "measured": <seconds since the epoch>, "sif": true, "userns": true, "overlay": null, "cvmfs": false}

``null``, or a fact that is missing, was not measured or could not be told. What was measured long ago counts for nothing.
"""

from __future__ import annotations

import os

from publisher.contract import quickjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

    Measured = Mapping[str, Optional[bool]]

SCHEMA = 1
NAMES = ("sif", "userns", "overlay", "cvmfs")
"""Facts: SIFs run without being unpacked; user namespaces; overlays; the repository answers."""
LIFETIME = 6 * 3600
"""Seconds for which a measurement counts."""
_CLOCK_STEP = 300  # seconds by which a file may seem to come from the future
_MOST_BYTES = 4096


class HostFacts:
    """``sif``, ``userns``, ``overlay`` and ``cvmfs``, each True, False or None; ``measured`` is when, None for never."""

    __slots__ = ("cvmfs", "measured", "overlay", "sif", "userns")

    def __init__(self, measured: int | None = None, found: Measured | None = None) -> None:
        known = found or {}
        self.measured = measured
        self.sif, self.userns, self.overlay, self.cvmfs = [known.get(name) for name in NAMES]


def read(path: str | None, now: float) -> HostFacts:
    """The facts in a file; none are known where it is absent, damaged, of another schema, too old, or from the future."""
    if path is None:
        return HostFacts()
    try:
        with open(path, "rb") as file:
            value = quickjson.loads(file.read(_MOST_BYTES))
        measured = value["measured"]
        if value["schema"] != SCHEMA or not now - LIFETIME <= measured <= now + _CLOCK_STEP:
            return HostFacts()
        return HostFacts(int(measured), {name: found for name, found in value.items() if isinstance(found, bool)})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return HostFacts()


def write(path: str, found: Measured, now: float) -> None:
    """Replace the file; facts that are not in ``found`` were not measured. Raises OSError."""
    import json  # noqa: PLC0415 - the hook only reads

    from publisher.contract import files  # noqa: PLC0415 - as above

    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    value = {"schema": SCHEMA, "measured": int(now), **{name: found.get(name) for name in NAMES}}
    files.replace(path, (json.dumps(value) + "\n").encode())
