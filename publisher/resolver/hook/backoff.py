"""Back off before reporting a repeated failure, since HTCondor sends a failed job back to the same machine at once.

The first failure of an image is reported at once. While the image keeps failing on this host in the same way, the delay grows:
one step, then two, four and eight steps, each jittered between a half and the whole of that. The count of each failure is the
content of a file in the cache's ``failures/``; the file's modification time is when the failure was last reported.
"""

from __future__ import annotations

import os
import time

RESET_AFTER = 1800
"""Seconds after which a failure counts as the first one again."""
_MAX_STEPS = 8
_MAX_COUNT = 1000


def delay(cache: str | None, failure: str, step: float, chance: float) -> float:
    """Return the seconds to wait before a failure is reported, and count it.

    Args:
        cache: directory of the cache; if it is None or cannot be written to, every failure waits one step.
        failure: what identifies the failure: its status and image.
        step: seconds of the first step; 0 for no delay.
        chance: a random number from 0 to 1.
    """
    earlier = _count(cache, failure)
    steps = 1.0  # the count cannot be recorded
    if earlier is not None:
        steps = min(_MAX_STEPS, 2 ** (earlier - 1)) if earlier else 0.0
    return step * steps * (0.5 + chance / 2)


def _count(cache: str | None, failure: str) -> int | None:
    """Return how often the failure was reported lately, and increment that; None if it cannot be recorded."""
    if cache is None:
        return None
    from publisher.contract import quickhash  # noqa: PLC0415 - already imported for the manifest

    path = os.path.join(cache, "failures", f"answer-{quickhash.sha256(failure.encode('utf-8', 'replace')).hexdigest()[:32]}")
    count = 0
    try:
        with open(path, "rb") as file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            count = min(int(file.read(8) or b"0"), _MAX_COUNT) if 0 <= age <= RESET_AFTER else 0
    except (OSError, ValueError):
        count = 0
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"%d" % (count + 1))
    except OSError:
        return None
    return count
