"""The images that jobs got on this host, from the trace: what a store should have before jobs ask again."""

from __future__ import annotations

import glob
import json
import os

from publisher.resolver.config.settings import SIF, UNPACKED
from publisher.resolver.host.all_users import UID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_RECENT = 7 * 86400  # seconds: as long as an entry of the cache counts as useful
_MAX_LINE_BYTES = 100_000  # a user's trace may have anything in it
_MAX_BYTES = 1 << 30  # of one file


def names(trace: str, now: float) -> list[str]:
    """Return the published images that jobs got as a SIF within a week, the most used last: so they stay if space is scarce.

    Args:
        trace: path of the trace, in which ``{uid}`` stands for each user; the rotated file beside it counts as well.
        now: the time, seconds since the epoch.
    """
    counts: dict[str, int] = {}
    for path in sorted(glob.glob(glob.escape(trace).replace(UID, "*"))):
        for name in (*_used(f"{path}.1", now), *_used(path, now)):
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: (counts[name], name))


def _used(path: str, now: float) -> Iterator[str]:
    """Yield the name of the image of each job in a file that started a SIF of late; nothing if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    with open(descriptor, "rb") as file:
        while file.tell() < _MAX_BYTES and (line := file.readline(_MAX_LINE_BYTES)):
            try:
                found = json.loads(line)
                name, form, age = found["name"], found["form"], now - found["time"]
            except (ValueError, TypeError, KeyError):
                continue
            if isinstance(name, str) and form in (SIF, UNPACKED) and age < _RECENT:
                yield name
