"""From the job ad to the reply: the decision, its line in the trace, and the delay before a repeated failure."""

from __future__ import annotations

import os
import time

from publisher.resolver.cache import pins
from publisher.resolver.errors import FetchError
from publisher.resolver.hook import backoff, decide, reply, statuses
from publisher.resolver.hook.job import Job
from publisher.resolver.select import resolve
from publisher.resolver.system import classad, log
from publisher.resolver.system.deadline_fork import ForkedCall
from publisher.resolver.system.notes import Warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.hook.decision import Decision

_REPLY_TIME, _REPLY_SHARE, _MAX_REPLY_SHARE = 10.0, 0.1, 0.25
"""Time that the decision leaves for the reply: seconds, or a share of the deadline if that is more; and a share at most."""
_RECENT = 600  # seconds after which a job that comes back tells nothing new about this machine
_TRACE_TIMEOUT = 1.0  # seconds for writing a line; the file system may hang


def prepare_job(content: bytes, settings: ResolverSettings, started: float, until: float, chance: float) -> tuple[bytes, float]:
    """Return the reply to a job: the answer for HTCondor, and the seconds to wait before it is written.

    Args:
        content: the job ad.
        settings: of the resolver.
        started: reading of the monotonic clock when the hook started.
        until: reading at which the reply must be complete.
        chance: a random number from 0 to 1.
    """
    notes, job = Warnings(), Job(classad.parse(content), _find_starter())
    decision = decide.decide(
        job, settings, scratch=os.getcwd(), now=time.time(), until=until - _time_for_reply(settings.deadline), notes=notes
    )
    seconds = round(time.monotonic() - started, 4)
    line = {"job": job.id, "owner": job.owner, **decision.to_json(), "fork": notes.fork or None, "seconds": seconds}
    write_trace(settings, line, notes, min(_TRACE_TIMEOUT, (until - time.monotonic()) / 2))
    _set_chirp_attributes(decision.chirp_attributes, notes)
    if decision.code == statuses.OK:
        _prepare_scratch(job, decision, settings, notes)
    for note in notes.all:
        log.warning(note)
    _report_failure(job, decision, settings)
    if decision.code == statuses.OK:
        message = "; ".join(filter(None, [decision.message, *notes.warnings]))  # HTCondor drops the stderr of a success
        return reply.success(message, decision.updates), 0.0
    delay = 0.0
    if decision.code == statuses.CONFIGURATION and settings.stop_file is not None:
        from publisher.resolver.system import stop_file  # noqa: PLC0415 - the machine takes no other job

        stop_file.request(settings.stop_file, decision.message)
    if decision.code >= statuses.FIRST_HOST_STATUS:
        cache = resolve.usable_cache(settings, Warnings())
        delay = backoff.delay(cache, f"{decision.code} {decision.image}", settings.backoff, chance)
    return reply.failure(decision.code, decision.message), delay


def _prepare_scratch(job: Job, decision: Decision, settings: ResolverSettings, notes: Warnings) -> None:
    """Give a job that starts the site's files, and remove the site's variables from the environment of its container."""
    if settings.job_files is not None:
        from publisher.resolver.hook import job_files  # noqa: PLC0415 - few sites have some

        try:
            job_files.copy(settings.job_files, os.getcwd())
        except OSError as error:
            notes.add(f"cannot copy {settings.job_files} into the scratch directory: {error}")
    if decision.image and any(name in job.environment for name in settings.drop_variables):
        from publisher.resolver.hook import environment  # noqa: PLC0415 - few jobs have such a variable

        kept = environment.without(job.environment, settings.drop_variables)
        if not job.environment.isprintable():
            notes.warn(f"the environment has line feeds or tabs, so none of {', '.join(settings.drop_variables)} was removed")
        elif kept != job.environment:
            decision.updates["Environment"] = kept


def write_trace(settings: ResolverSettings, line: dict[str, object], notes: Warnings, seconds: float = _TRACE_TIMEOUT) -> None:
    """Append a line to the trace, if there is one. A failure, or a timeout after ``seconds``, is only noted."""
    if settings.trace is None:
        return
    from publisher.resolver.hook import trace  # noqa: PLC0415 - not every site has one

    path, whole = settings.trace, {"time": round(time.time(), 3), "host": os.uname().nodename, **line}

    def append() -> bytes:
        trace.append(path, whole, settings.trace_size)
        return b""

    try:
        ForkedCall(append).result(time.monotonic() + seconds)
    except FetchError as error:
        notes.add(f"cannot write the trace {path}: {error}")


def _report_failure(job: Job, decision: Decision, settings: ResolverSettings) -> None:
    """Report to the startd's cron that a published image did not start on this host, now or when the job last ran here."""
    reason = ""
    if decision.code in (statuses.SANDBOX, statuses.CACHE):
        reason = f"{statuses.short_name(decision.code)}: {decision.message}"
    elif job.test_failures and "ImageDigest" in decision.chirp_attributes and _has_just_left(job):
        reason = f"Apptainer's test of {decision.image} failed"
    cache = resolve.usable_cache(settings, Warnings()) if reason else None
    if cache is not None:
        from publisher.resolver.cache import start_failures  # noqa: PLC0415 - this is rare

        start_failures.report(cache, f"job {job.id}: {reason}", time.time())


def _has_just_left(job: Job) -> bool:
    """Return whether a job left this machine a short while ago without having ended."""
    return 0 <= time.time() - job.last_vacated < _RECENT and job.last_host.partition("@")[2] == _machine_name()


def _machine_name() -> str | None:
    """Return the name of this machine as it stands in the names of its slots after the ``@``; None if it is unknown."""
    try:
        with open(os.environ["_CONDOR_MACHINE_AD"], "rb") as file:
            return classad.get_string(classad.parse(file.read(classad.MAX_BYTES)), "Name").partition("@")[2]
    except (OSError, KeyError):
        return None


def _time_for_reply(deadline: float) -> float:
    """Return the seconds before the deadline at which the decision must be made, so that the reply is in time."""
    return min(max(_REPLY_TIME, _REPLY_SHARE * deadline), _MAX_REPLY_SHARE * deadline)


def _find_starter() -> Starter | None:
    """Return the job's starter; if it is unknown, the job runs without a pin."""
    try:
        return pins.find_starter(os.environ)
    except OSError:
        return None


def _set_chirp_attributes(attributes: dict[str, str], notes: Warnings) -> None:
    """Set attributes in the job ad of the access point. A failure is only noted."""
    config = os.environ.get("_CONDOR_CHIRP_CONFIG")
    if config and attributes:
        from publisher.resolver.hook import chirp  # noqa: PLC0415 - only if HTCondor offers it

        try:
            chirp.set_attributes(config, attributes)
        except (OSError, ValueError) as error:
            notes.add(f"cannot record the image in the job ad: {error}")
