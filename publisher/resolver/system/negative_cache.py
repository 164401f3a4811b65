"""The negative cache: recent failures on this host, so that the next jobs do not all retry them at once.

Each failure is a file ``failures/<key>`` in the cache with three fields: the number of failures in a row, the time of the next
retry (seconds since the epoch) and the reason. The pause doubles with each failure and is jittered, so that the hosts of a site
do not all retry at the same moment.
"""

from __future__ import annotations

import contextlib
import os

from publisher.resolver.system import log

_DIRECTORY = "failures"
_FIRST_PAUSE, _MAX_PAUSE = 20.0, 900.0  # seconds until the next retry
_MAX_DOUBLINGS = 6
_RETENTION = 3600.0  # seconds after which an entry is swept
_MAX_BYTES = 2000  # of a file; longer reasons are cut


def recent_failure(root: str, key: str, now: float) -> str | None:
    """Return why ``key`` must not be retried yet, or None if it may be.

    Args:
        root: directory of the cache.
        key: name of what failed.
        now: seconds since the epoch.
    """
    entry = _read(root, key)
    if entry is None or not now < entry[1] <= now + 2 * _MAX_PAUSE:  # a clock that was set back must not block anything
        return None
    return f"{entry[2]} ({entry[0]} in a row on this host; next retry in {entry[1] - now:.0f} s)"


def record_failure(root: str, key: str, reason: str, now: float) -> None:
    """Record a failure of ``key``; a failure to write is ignored. See :func:`recent_failure` for the arguments."""
    entry = _read(root, key)
    count = 1 + (entry[0] if entry else 0)
    pause = min(_MAX_PAUSE, _FIRST_PAUSE * 2 ** min(count - 1, _MAX_DOUBLINGS)) * jitter()
    text = f"{count} {now + pause:.0f} {' '.join(reason.split())}"
    log.debug("recorded failure %d in a row of %s, next retry in %.0f s: %s", count, key, pause, reason)
    _write(root, key, text)


def record_pause(root: str, key: str, reason: str, now: float, seconds: float) -> None:
    """Record that ``key`` has asked for no requests for some seconds; a failure to write is ignored."""
    _write(root, key, f"1 {now + seconds:.0f} {' '.join(reason.split())}")


def pause_left(root: str, key: str, now: float) -> float:
    """Return the seconds for which ``key`` must not be asked, 0 if it may be."""
    entry = _read(root, key)
    return entry[1] - now if entry is not None and now < entry[1] <= now + 2 * _MAX_PAUSE else 0.0


def _write(root: str, key: str, text: str) -> None:
    from publisher.contract import files  # noqa: PLC0415 - a warm answer records nothing

    with contextlib.suppress(OSError):
        os.makedirs(os.path.join(root, _DIRECTORY), mode=0o700, exist_ok=True)
        files.replace(_path(root, key), text.encode()[:_MAX_BYTES])


def jitter() -> float:
    """Return a random factor from 0.5 to just below 1.5."""
    return 0.5 + os.urandom(1)[0] / 256


def clear(root: str, key: str) -> None:
    """Forget the failures of ``key``, since it works again."""
    with contextlib.suppress(OSError):
        os.unlink(_path(root, key))


def sweep(root: str, now: float) -> None:
    """Remove old entries; ``now`` is in seconds since the epoch."""
    try:
        keys = os.listdir(os.path.join(root, _DIRECTORY))
    except OSError:
        return
    for key in keys:
        entry = _read(root, key)
        until = _modified(root, key) if entry is None else entry[1]
        if not now - _RETENTION < until < now + _RETENTION:
            clear(root, key)


def _modified(root: str, key: str) -> float:
    """Return the modification time of a file that is no entry: other modules keep files in the directory as well."""
    try:
        return os.stat(_path(root, key)).st_mtime
    except OSError:
        return 0.0


def _path(root: str, key: str) -> str:
    return os.path.join(root, _DIRECTORY, key)


def _read(root: str, key: str) -> tuple[int, float, str] | None:
    """Return the count, the time of the next retry and the reason of an entry, or None if there is no valid entry."""
    try:
        with open(_path(root, key), "rb") as file:
            count, until, reason = file.read(_MAX_BYTES).decode(errors="replace").split(" ", 2)
        return int(count), float(until), reason
    except (OSError, ValueError):
        return None
