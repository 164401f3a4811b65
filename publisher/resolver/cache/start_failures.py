"""Reports of jobs whose image did not start on this host: several in a row, and the machine takes no such job for a while.

A hook learns of such a failure when HTCondor sends the job back to the same machine (status 45), or when it fails itself because
of the sandbox or the cache. It appends a line ``<seconds since the epoch> <what failed>`` to ``start-failures`` in its user's
cache. The startd's cron, which may run as another user, counts the lines of all caches that are younger than the last probe which
started an image.
"""

from __future__ import annotations

from publisher.resolver.cache import user_reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = "start-failures"
_LIFETIME = 1800.0  # seconds for which a report counts if no image can be probed
_CLOCK_STEP = 300  # seconds by which a report may seem to come from the future
_MAX_BYTES = 1 << 14  # of a file; it then begins anew
_MAX_REASON = 200


def report(root: str, reason: str, now: float) -> None:
    """Report a failure to the startd's cron; do nothing if the cache in ``root`` cannot be written."""
    user_reports.append(root, _NAME, f"{now:.0f} {' '.join(reason.split())[:_MAX_REASON]}", _MAX_BYTES)


def recent(caches: Iterable[tuple[int, str]], since: float, now: float) -> list[str]:
    """Return the reasons of the failures since the last successful probe.

    Args:
        caches: user ID of the owner and directory of each cache.
        since: when a probe last started an image, seconds since the epoch.
        now: the time, likewise.
    """
    begin = max(since, now - _LIFETIME)
    reasons = []
    for user, root in caches:
        for line in user_reports.read(root, _NAME, user, 2 * _MAX_BYTES).splitlines():
            when, _, reason = line.partition(" ")
            if when.isascii() and when.isdigit() and begin < int(when) <= now + _CLOCK_STEP:
                reasons.append("".join(letter for letter in reason if letter.isprintable())[:_MAX_REASON])
    return reasons
