"""HTCondor's hook ``prepare-job`` as a process: the job ad on standard input, one answer on standard output, in time.

HTCondor sets no deadline for a hook, puts the job on hold if the hook fails without a status, and lets the job run, perhaps
outside any container, if the hook succeeds without an answer. So a child process does all the work and may hang anywhere; this
process only waits with a deadline, then writes the answer with one write(2) and exits with 0. Every failure, even a bug, becomes
a status of 300 or more; the traceback of a bug goes to standard error.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the core of signal: importing signal costs every job a millisecond
import os
import select
import sys
import time

from publisher.contract import units
from publisher.contract.errors import ExpectedError
from publisher.resolver.cache import pins
from publisher.resolver.config.commandline import CommandLine
from publisher.resolver.errors import DeadlineError
from publisher.resolver.hook import reply, statuses
from publisher.resolver.system import log
from publisher.resolver.system.classad import MAX_BYTES
from publisher.resolver.system.watched_call import WatchedCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from publisher.resolver.config.settings import ResolverSettings

    Reply = tuple[bytes, float]

_CHUNK = 1 << 16
_WARM_TIME = 1.0  # seconds, more than a warm answer takes
_IMPORT_TIME = 0.05  # seconds after which an import that goes on is looked at again
_DEFAULT_BACKOFF = 30.0  # seconds: the setting "backoff" if the settings cannot be read


def main(arguments: Sequence[str]) -> int:
    """Run the hook with the arguments of the process, ``prepare-job`` among them, and return 0."""
    log.redirect(_write_stderr)
    started = time.monotonic()
    backoff, until = _read_backoff(), started + _DEFAULT_BACKOFF
    line = None
    try:
        line = CommandLine(arguments)
        line.configure_log()
        settings = line.settings(os.environ)
        backoff, until = settings.backoff, started + settings.deadline
        answer, delay = _prepare(settings, started, until)
    except ExpectedError as error:
        _stop_machine(line, error)
        answer, delay = reply.failure(statuses.for_error(error), statuses.message(error)), backoff * _chance()
    except Exception:  # noqa: BLE001 - the outermost frame: a bug must not let a job run outside its container
        sys.excepthook(*sys.exc_info())
        answer, delay = _bug(backoff)
    time.sleep(max(0.0, min(delay, until - time.monotonic())))
    _signal.setitimer(_signal.ITIMER_REAL, 0)  # while Python ends, the signal would kill it
    _write_answer(answer)
    return 0


def _prepare(settings: ResolverSettings, started: float, until: float) -> Reply:
    """Return the reply to the job on standard input."""
    content = _read_stdin(until)
    if not content.strip():
        return _failure(statuses.NO_AD, "there is no job ad on standard input"), settings.backoff * _chance()
    starter, itself = os.getppid(), os.getpid()  # before it forks: either may have ended when it next looks
    os.environ.setdefault(pins.STARTER_VARIABLE, str(starter))  # the child has another parent

    def prepare_in_child() -> bytes:
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)  # a second child is forked after the handler below was set
        _end_with_parent(_signal.SIGKILL, itself)
        return _prepare_in_child(content, settings, started, until)

    call = WatchedCall(prepare_in_child)
    _signal.signal(_signal.SIGTERM, lambda *_: _terminate(call))
    _end_with_parent(_signal.SIGTERM, starter)
    try:
        return reply.unpack(call.result(until))
    except DeadlineError:
        _trace_deadline(settings)
        return _failure(statuses.DEADLINE, f"the image was not ready within {settings.deadline:g} s"), 0.0
    finally:
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)  # the child's process ID may be reused from now on


def _stop_machine(line: CommandLine | None, error: ExpectedError) -> None:
    """Stop the machine if it has a stop file, since no job can start with wrong settings."""
    for path in line.flags.get("stop-file", ()) if line is not None else ():
        from publisher.resolver.system import stop_file  # noqa: PLC0415 - the machine takes no other job

        stop_file.request(path, str(error))


def _read_stdin(until: float) -> bytes:
    """Return all of standard input; nothing if it does not end in time or is too large for an ad."""
    content = b""
    while len(content) <= MAX_BYTES:
        if not select.select([0], [], [], max(0.0, until - time.monotonic()))[0]:
            return b""
        chunk = os.read(0, _CHUNK)
        if not chunk:
            return content
        content += chunk
    return b""


def _prepare_in_child(content: bytes, settings: ResolverSettings, started: float, until: float) -> bytes:
    """Return the packed reply. This runs in the child process, which has no standard streams but sends its log to the parent."""
    from publisher.resolver.hook import prepare  # noqa: PLC0415 - the parent needs none of it

    try:
        answer, delay = prepare.prepare_job(content, settings, started, until, _chance())
    except Exception:  # noqa: BLE001 - the parent writes the traceback to its standard error
        import traceback  # noqa: PLC0415 - a bug, it is to be hoped, is rare

        log.relay(traceback.format_exc())
        answer, delay = _bug(settings.backoff)
    return reply.pack(answer, delay)


def _end_with_parent(number: int, parent: int) -> None:
    """End this process with its parent, by the signal ``number``, once it has run for longer than a warm answer does."""

    def request(_: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            _signal.setitimer(_signal.ITIMER_REAL, _IMPORT_TIME)
            return
        from publisher.resolver.system import parent_death  # noqa: PLC0415 - a warm answer is there by then

        parent_death.request(number, parent)

    _signal.signal(_signal.SIGALRM, request)
    _signal.setitimer(_signal.ITIMER_REAL, _WARM_TIME)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a signal interrupts an import: before Python 3.12 one more can break it (a KeyError in importlib)."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _failure(code: int, message: str) -> bytes:
    """Return the answer for a failure, with the next step for its status."""
    return reply.failure(code, f"{message} ({statuses.next_step(code)})")


def _bug(backoff: float) -> Reply:
    return _failure(statuses.BUG, "an unexpected error in the hook"), backoff * _chance()


def _trace_deadline(settings: ResolverSettings) -> None:
    """Write the line of the trace for a missed deadline, since the child that would have written it is dead."""
    from publisher.resolver.hook import prepare  # noqa: PLC0415 - this is rare
    from publisher.resolver.system.notes import Warnings  # noqa: PLC0415 - as above

    notes = Warnings()
    line: dict[str, object] = {"code": statuses.DEADLINE, "why": "the deadline has passed", "seconds": settings.deadline}
    prepare.write_trace(settings, line, notes)
    for note in notes.all:
        log.warning(note)


def _read_backoff() -> float:
    """Return the setting "backoff" from the environment, for use until all settings are known to be valid."""
    try:
        return units.parse_seconds(os.environ["IMAGE_RESOLVER_BACKOFF"])
    except (KeyError, ValueError):
        return _DEFAULT_BACKOFF


def _chance() -> float:
    """Return a random number from 0 to 1."""
    return os.urandom(1)[0] / 255


def _terminate(call: WatchedCall) -> None:
    """Handle SIGTERM: kill the child, and end without an answer."""
    call.kill()
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    os.kill(os.getpid(), _signal.SIGTERM)


def _write_stderr(lines: str) -> None:
    """Write lines for the StarterLog; a failure must not keep the job from its answer."""
    try:  # noqa: SIM105 - contextlib would be one more module in every job
        os.write(2, lines.encode("utf-8", "replace"))
    except OSError:
        pass


def _write_answer(answer: bytes) -> None:
    """Write the whole answer at once; if that fails, die by a signal: HTCondor then requeues the job instead of holding it."""
    try:
        written = os.write(1, answer)
    except OSError:
        written = 0
    if written != len(answer):
        os.kill(os.getpid(), _signal.SIGKILL)
