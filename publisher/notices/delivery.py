"""Delivers waiting notices within bounds; a failure keeps them for the next run and fails nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from publisher.errors import PublisherError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from publisher.notices.memory import Notice

    Send = Callable[[Notice], None]

_log = logging.getLogger(__name__)
DEADLINE = 60.0
"""Seconds after which the other notices wait for the next run."""
LIFETIME = 2 * 86400
"""Seconds after which a notice is given up."""
MOST_WAITING = 500
_MOST_LINES = 3


def deliver(
    waiting: Sequence[Notice], senders: Mapping[str, Send], *, now: int, clock: Callable[[], float]
) -> tuple[list[Notice], list[str]]:
    """Send notices; return those that wait for the next run, and lines for the run's report.

    After a failure, nothing more is sent to the same recipient in this run.

    Args:
        waiting: the notices, the oldest first.
        senders: channel -> function that sends a notice, and raises PublisherError. A notice of another channel is given up.
        now: seconds since the epoch.
        clock: returns seconds, monotonic.
    """
    end, left = clock() + DEADLINE, []
    failed: dict[tuple[str, str], str] = {}
    for notice in waiting[-MOST_WAITING:]:
        send, key = senders.get(notice.channel), (notice.channel, notice.recipient)
        if send is None or now - notice.made > LIFETIME:
            _log.warning(
                "a notice by %s about %d image(s) is given up: it could not be sent", notice.channel, len(notice.changes)
            )
            continue
        if key in failed or clock() >= end:
            left.append(notice)
            continue
        try:
            send(notice)
        except PublisherError as error:
            failed[key] = str(error)
            left.append(notice)
    lines = [f"a notice could not be sent: {reason}" for reason in dict.fromkeys(failed.values())][:_MOST_LINES]
    if left:
        lines.append(f"{len(left)} notice(s) wait for the next run")
    return left, lines
