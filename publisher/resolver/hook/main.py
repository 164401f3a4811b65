"""HTCondor's hook ``prepare-job`` as a process: the job's ad on standard input, one answer on standard output, in time.

HTCondor gives a hook no deadline, puts the job on hold when it fails without a status, and lets the job run, outside any
container perhaps, when it ends well without an answer. So all work is done by a child, which may hang wherever it likes; this
process only waits, with a deadline, and then writes the one answer, in one write(2), and ends with 0. What goes wrong on the way,
a bug too, is a status of 300 or more, with the traceback on standard error.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal is made of: importing that costs every job a millisecond
import os
import select
import sys
import time

from publisher.contract import units
from publisher.contract.errors import ExpectedError
from publisher.resolver.cache import pins
from publisher.resolver.config.commandline import CommandLine
from publisher.resolver.errors import DeadlineError
from publisher.resolver.hook import statuses
from publisher.resolver.hook.classad import MOST_BYTES
from publisher.resolver.hook.reply import HookReply, failure
from publisher.resolver.system.deadline_fork import ForkedCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.resolver.config.settings import ResolverSettings

_CHUNK = 1 << 16
_STEP = 30.0  # seconds: setting "backoff" where the settings cannot be had


def main(arguments: Sequence[str]) -> int:
    """Run the hook with the process's arguments, ``prepare-job`` among them; always 0, if it can be written at all."""
    started = time.monotonic()
    step, until = _step(), started + _STEP
    try:
        settings = CommandLine(arguments).settings(os.environ)
        step, until = settings.backoff, started + settings.deadline
        reply = _reply(settings, started, until)
    except ExpectedError as error:
        reply = HookReply(failure(statuses.of(error), str(error)), wait=step * _chance())
    except Exception:  # noqa: BLE001 - the outermost frame: a bug must not become a job outside its container
        sys.excepthook(*sys.exc_info())
        reply = _broken(step)
    time.sleep(max(0.0, min(reply.wait, until - time.monotonic())))
    _say(reply.talk)
    _write(reply.answer)
    return 0


def _reply(settings: ResolverSettings, started: float, until: float) -> HookReply:
    content = _read(until)
    if not content.strip():
        return HookReply(failure(statuses.NO_AD, "there is no job's ad on standard input"), wait=settings.backoff * _chance())
    os.environ.setdefault(pins.STARTER, str(os.getppid()))  # the child's parent is another
    attempt = ForkedCall(lambda: _worked_out(content, settings, started, until).to_bytes())
    _signal.signal(_signal.SIGTERM, lambda *_: _die(attempt))
    try:
        return HookReply.from_bytes(attempt.result(until))
    except DeadlineError:
        _trace_deadline(settings)
        return HookReply(failure(statuses.DEADLINE, f"the image was not ready within {settings.deadline:g} s"))
    finally:
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)  # the child's number may be another process's by now


def _read(until: float) -> bytes:
    """Standard input to its end, as much of it as an ad may have; nothing where it does not end in time."""
    content = b""
    while len(content) <= MOST_BYTES:
        if not select.select([0], [], [], max(0.0, until - time.monotonic()))[0]:
            return b""
        chunk = os.read(0, _CHUNK)
        if not chunk:
            return content
        content += chunk
    return b""


def _worked_out(content: bytes, settings: ResolverSettings, started: float, until: float) -> HookReply:
    """In the child, whose standard streams lead nowhere: what it says is collected."""
    import io  # noqa: PLC0415 - built in, and only the child needs it

    from publisher.resolver.hook import prepare  # noqa: PLC0415 - the parent needs none of it

    sys.stderr = talk = io.StringIO()
    try:
        reply = prepare.prepared(content, settings, started, until, _chance())
    except Exception:  # noqa: BLE001 - the traceback goes to the parent's standard error
        sys.excepthook(*sys.exc_info())
        reply = _broken(settings.backoff)
    reply.talk = talk.getvalue()
    return reply


def _broken(step: float) -> HookReply:
    return HookReply(failure(statuses.BUG, "a bug in the hook"), wait=step * _chance())


def _trace_deadline(settings: ResolverSettings) -> None:
    """By this process: there is no child any more that could."""
    from publisher.resolver.hook import prepare  # noqa: PLC0415 - this happens rarely
    from publisher.resolver.system.notes import Warnings  # noqa: PLC0415 - as above

    notes = Warnings()
    line: dict[str, object] = {"code": statuses.DEADLINE, "why": "the deadline has passed", "seconds": settings.deadline}
    prepare.trace_line(settings, line, notes)
    for note in notes.all:
        _say(f"image-resolver: {note}\n")


def _step() -> float:
    """Setting "backoff" while the settings as a whole are not known to be right."""
    try:
        return units.seconds(os.environ["IMAGE_RESOLVER_BACKOFF"])
    except (KeyError, ValueError):
        return _STEP


def _chance() -> float:
    """From 0 to 1, by chance."""
    return os.urandom(1)[0] / 255


def _die(attempt: ForkedCall) -> None:
    """On SIGTERM: no answer, no child left behind."""
    attempt.give_up()
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    os.kill(os.getpid(), _signal.SIGTERM)


def _say(talk: str) -> None:
    """For the StarterLog; that it cannot be said is no reason to withhold an answer."""
    try:  # noqa: SIM105 - contextlib would be one module more in every job
        os.write(2, talk.encode("utf-8", "replace"))
    except OSError:
        pass


def _write(answer: bytes) -> None:
    """One write, whole. Who cannot answer dies by a signal: that puts the job back into the queue, an exit status holds it."""
    try:
        written = os.write(1, answer)
    except OSError:
        written = 0
    if written != len(answer):
        os.kill(os.getpid(), _signal.SIGKILL)
