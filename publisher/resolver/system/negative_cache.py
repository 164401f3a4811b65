"""What failed a moment ago on this host, so that the jobs behind do not all try it again: ``failures/<sha256>`` in the cache.

A file has how often in a row, until when it is not tried again (seconds since the epoch), and why. The pause doubles and is
never the same twice, so that a site's hosts do not come back all at once.
"""

from __future__ import annotations

import contextlib
import os

_DIRECTORY = "failures"
_FIRST, _LONGEST = 20.0, 900.0  # seconds until the next try
_MOST_DOUBLINGS = 6
_KEPT = 3600.0  # seconds
_MOST_BYTES = 2000  # of a file; longer reasons are cut


def recent(root: str, key: str, now: float) -> str | None:
    """Why ``key`` is not to be tried yet, None where it may be. ``now`` in seconds since the epoch."""
    failure = _read(root, key)
    if failure is None or not now < failure[1] <= now + 2 * _LONGEST:  # a clock that was set back must not stop anything
        return None
    return f"{failure[2]} ({failure[0]} in a row on this host; the next try in {failure[1] - now:.0f} s)"


def note(root: str, key: str, reason: str, now: float) -> None:
    """Remember that ``key`` failed; what cannot be written is not remembered."""
    from publisher.contract import files  # noqa: PLC0415 - a warm answer notes nothing

    before = _read(root, key)
    times = 1 + (before[0] if before else 0)
    pause = min(_LONGEST, _FIRST * 2 ** min(times - 1, _MOST_DOUBLINGS)) * jitter()
    text = f"{times} {now + pause:.0f} {' '.join(reason.split())}"
    try:
        os.makedirs(os.path.join(root, _DIRECTORY), mode=0o700, exist_ok=True)
        files.replace(_path(root, key), text.encode()[:_MOST_BYTES])
    except OSError:
        pass


def jitter() -> float:
    """From 0.5 to just below 1.5, another one each time."""
    return 0.5 + os.urandom(1)[0] / 256


def forget(root: str, key: str) -> None:
    """It worked."""
    with contextlib.suppress(OSError):
        os.unlink(_path(root, key))


def sweep(root: str, now: float) -> None:
    """Remove what has had its time."""
    try:
        keys = os.listdir(os.path.join(root, _DIRECTORY))
    except OSError:
        return
    for key in keys:
        failure = _read(root, key)
        until = _changed(root, key) if failure is None else failure[1]
        if not now - _KEPT < until < now + _KEPT:
            forget(root, key)


def _changed(root: str, key: str) -> float:
    """When a file was written that is no failure: others remember things there as well."""
    try:
        return os.stat(_path(root, key)).st_mtime
    except OSError:
        return 0.0


def _path(root: str, key: str) -> str:
    return os.path.join(root, _DIRECTORY, key)


def _read(root: str, key: str) -> tuple[int, float, str] | None:
    try:
        with open(_path(root, key), "rb") as file:
            times, until, reason = file.read(_MOST_BYTES).decode(errors="replace").split(" ", 2)
        return int(times), float(until), reason
    except (OSError, ValueError):
        return None
