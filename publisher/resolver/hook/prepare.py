"""From the job's ad to the reply: the decision, its line in the trace, and how long a failure is kept back."""

from __future__ import annotations

import os
import sys
import time

from publisher.resolver.cache import pins
from publisher.resolver.errors import FetchError
from publisher.resolver.hook import backoff, decide, reply, statuses
from publisher.resolver.hook import classad as ads
from publisher.resolver.hook.job import Job
from publisher.resolver.hook.reply import HookReply
from publisher.resolver.select import resolve
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.system.notes import Warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.config.settings import ResolverSettings

_ANSWERING, _ANSWERING_SHARE, _MOST_ANSWERING = 10.0, 0.1, 0.25
"""What the decision leaves of the time for the answer: seconds, or a share of it where that is more; and a share at most."""
_TRACE = 1.0  # seconds for its line: a file system that hangs may be what it stands on


def prepared(content: bytes, settings: ResolverSettings, started: float, until: float, chance: float) -> HookReply:
    """The reply to a job.

    Args:
        content: its ad.
        settings: where things are, and the site's policy.
        started: reading of the monotonic clock when the hook began.
        until: reading at which it has to be there.
        chance: from 0 to 1, by chance.
    """
    notes, job = Warnings(), Job(ads.read(content), _starter())
    found = decide.decide(
        job, settings, scratch=os.getcwd(), now=time.time(), until=until - _answering(settings.deadline), notes=notes
    )
    seconds = round(time.monotonic() - started, 4)
    line = {"job": job.id, "owner": job.owner, **found.to_json(), "seconds": seconds}
    trace_line(settings, line, notes, min(_TRACE, (until - time.monotonic()) / 2))
    _cite(found.cited, notes)
    for note in notes.all:
        sys.stderr.write(f"image-resolver: {note}\n")
    if found.code == statuses.OK:
        said = "; ".join(filter(None, [found.message, *notes.warnings]))  # what goes to stderr is dropped where all went well
        return HookReply(reply.success(said, found.updates))
    wait = 0.0
    if found.code >= statuses.FIRST_OF_HOST:
        cache = resolve.usable_cache(settings, Warnings())
        wait = backoff.seconds(cache, f"{found.code} {found.image}", settings.backoff, chance)
    return HookReply(reply.failure(found.code, found.message), wait=wait)


def _answering(deadline: float) -> float:
    """Seconds before the deadline at which the decision gives up waiting: what is then done and said must come in time."""
    return min(max(_ANSWERING, _ANSWERING_SHARE * deadline), _MOST_ANSWERING * deadline)


def _starter() -> Starter | None:
    """The job's starter; where nobody can say which it is, what the job uses is not kept from being removed."""
    try:
        return pins.starter(os.environ)
    except OSError:
        return None


def _cite(attributes: dict[str, str], notes: Warnings) -> None:
    """Tell the starter what the job's ad should keep; that it cannot be told is no reason to withhold an image."""
    config = os.environ.get("_CONDOR_CHIRP_CONFIG")
    if config and attributes:
        from publisher.resolver.hook import chirp  # noqa: PLC0415 - only where HTCondor offers it

        try:
            chirp.tell(config, attributes)
        except (OSError, ValueError) as error:
            notes.add(f"the job's ad does not get the image's digest: {error}")


def trace_line(settings: ResolverSettings, line: dict[str, object], notes: Warnings, seconds: float = _TRACE) -> None:
    """Add to the trace, if there is one; that it cannot be written, or not in time, is no reason to withhold an image."""
    if settings.trace is None:
        return
    from publisher.resolver.hook import trace  # noqa: PLC0415 - not every site has one

    path, whole = settings.trace, {"time": round(time.time(), 3), **line}

    def write() -> bytes:
        trace.append(path, whole, settings.trace_size)
        return b""

    try:
        ForkedCall(write).result(time.monotonic() + seconds)
    except FetchError as error:
        notes.add(f"the trace cannot be written: {error}")
