"""Waiting before a failure is answered again: HTCondor matches a job that came back to the same machine at once.

The first failure of an image is answered at once. While it keeps failing on this host in the same way, each answer waits longer:
the first step, then twice that, up to eight times, each time by chance between a half and the whole of it. The memory is a file
for each failure in the cache's ``failures/``; its content is how often, its date when.
"""

from __future__ import annotations

import os
import time

FORGOTTEN = 1800
"""Seconds after which a failure is as good as new."""
_MOST_STEPS = 8
_MOST_COUNT = 1000


def seconds(cache: str | None, failure: str, step: float, chance: float) -> float:
    """How long to wait before this failure is answered.

    Args:
        cache: the cache's directory; where it is None, or cannot be written, each failure waits a step.
        failure: what makes it the same failure: status and image.
        step: seconds of the first step; 0 for no waiting.
        chance: from 0 to 1, by chance.
    """
    times = _count(cache, failure)
    steps = 1.0 if times is None else min(_MOST_STEPS, 2 ** (times - 1)) if times else 0.0
    return step * steps * (0.5 + chance / 2)


def _count(cache: str | None, failure: str) -> int | None:
    """How often it was answered before, shortly; counted on by one. None where nothing can be remembered."""
    if cache is None:
        return None
    import hashlib  # noqa: PLC0415 - imported with the manifest anyway

    path = os.path.join(cache, "failures", f"answer-{hashlib.sha256(failure.encode('utf-8', 'replace')).hexdigest()[:32]}")
    times = 0
    try:
        with open(path, "rb") as file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            times = min(int(file.read(8) or b"0"), _MOST_COUNT) if 0 <= age <= FORGOTTEN else 0
    except (OSError, ValueError):
        times = 0
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"%d" % (times + 1))
    except OSError:
        return None
    return times
