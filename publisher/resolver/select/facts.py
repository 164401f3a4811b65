"""Facts measured on this host: one small JSON file, written by ``pilot-start`` and ``startd-cron`` and read by the hook.

    {"schema": 1, "measured": <seconds since the epoch>, "sif": true, "userns": true, "overlay": null, "cvmfs": false,
     "started": <seconds since the epoch>}

A fact that is ``null`` or missing was not measured, or the measurement gave no result. Facts that are too old are ignored.
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
"""The facts: SIFs run without being unpacked; user namespaces work; bind mounts anywhere work; the repository answers."""
LIFETIME = 6 * 3600
"""Seconds for which a measurement is used."""
_CLOCK_STEP = 300  # seconds by which a file may seem to come from the future
_MAX_BYTES = 4096


class HostFacts:
    """The facts of a host.

    Attributes:
        measured: when they were measured, seconds since the epoch; None for never.
        started: when a probe last started an image, likewise; 0 for never.
        sif, userns, overlay, cvmfs: True, False or None for unknown; see :data:`NAMES`.
    """

    __slots__ = ("cvmfs", "measured", "overlay", "sif", "started", "userns")

    def __init__(self, measured: int | None = None, values: Measured | None = None, started: int = 0) -> None:
        known = values or {}
        self.measured = measured
        self.started = started
        self.sif, self.userns, self.overlay, self.cvmfs = [known.get(name) for name in NAMES]


def read(path: str | None, now: float) -> HostFacts:
    """Return the facts in a file; all are unknown if it is absent, damaged, too old, from the future, or of another schema."""
    if path is None:
        return HostFacts()
    try:
        with open(path, "rb") as file:
            value = quickjson.loads(file.read(_MAX_BYTES))
        measured = value["measured"]
        if value["schema"] != SCHEMA or not now - LIFETIME <= measured <= now + _CLOCK_STEP:
            return HostFacts()
        values = {name: fact for name, fact in value.items() if isinstance(fact, bool)}
        return HostFacts(int(measured), values, int(value.get("started", 0)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return HostFacts()


def write(path: str, values: Measured, now: float, started: int = 0) -> None:
    """Replace the file; facts that are not in ``values`` become null. Raise OSError if that fails."""
    import json  # noqa: PLC0415 - the hook only reads

    from publisher.contract import files  # noqa: PLC0415 - as above

    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    content = {"schema": SCHEMA, "measured": int(now), **{name: values.get(name) for name in NAMES}, "started": started}
    files.replace(path, (json.dumps(content) + "\n").encode())
