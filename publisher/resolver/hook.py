"""HTCondor's hook ``prepare-job`` as a process: the job's ad on standard input, one answer on standard output, in time.

HTCondor gives a hook no deadline, puts the job on hold when it fails without a status, and lets the job run, outside any
container perhaps, when it ends well without an answer. So all work is done by a child, which may hang wherever it likes; this
process only waits, with a deadline, and then writes the one answer, in one write(2), and ends with 0. What goes wrong on the way,
a bug too, is a status of 300 or more, with the traceback on standard error.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from publisher.resolver import ad as ads
from publisher.resolver import codes
from publisher.resolver.attempt import Attempt
from publisher.resolver.commandline import Line, say
from publisher.resolver.errors import FetchError, ResolverError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from publisher.resolver.config import Settings

_CHUNK = 1 << 16
_LONGEST_MESSAGE = 1000  # characters; it ends up in the job's ad and in its log


def main(arguments: Sequence[str]) -> int:
    """Run the hook with the process's arguments, ``prepare-job`` among them; always 0, if it can be written at all."""
    started = time.monotonic()
    try:
        settings = Line(arguments).settings(os.environ)
        until = started + settings.deadline
        answer, talk = _answer(settings, until)
    except ResolverError as error:
        answer, talk = failure(codes.of(error), str(error)), ""
    except Exception:  # noqa: BLE001 - the outermost frame: a bug must not become a job outside its container
        sys.excepthook(*sys.exc_info())
        answer, talk = failure(codes.BUG, "a bug in the hook"), ""
    sys.stderr.write(talk)
    sys.stderr.flush()
    _write(answer)
    return 0


def failure(code: int, message: str) -> bytes:
    """The answer that says why there is no image."""
    shown = " ".join(message.split())[:_LONGEST_MESSAGE]
    return ads.written({"HookStatusCode": code, "HookStatusMessage": f"{shown} [{codes.name(code)}]"})


def _answer(settings: Settings, until: float) -> tuple[bytes, str]:
    """The answer, and what is to be said on standard error."""
    content = _read(until)
    if not content.strip():
        return failure(codes.NO_AD, "there is no job's ad on standard input"), ""
    attempt = Attempt(lambda: _worked_out(content, settings, until))
    signal.signal(signal.SIGTERM, lambda *_: _die(attempt))
    try:
        reply = attempt.result(until)
    except FetchError:
        return failure(codes.DEADLINE, f"the image was not ready within {settings.deadline:g} s"), ""
    size, _, rest = reply.partition(b"\n")
    return rest[: int(size)], rest[int(size) :].decode("utf-8", "replace")


def _read(until: float) -> bytes:
    """Standard input to its end, as much of it as an ad may have; nothing where it does not end in time."""
    content = b""
    while len(content) <= ads.MOST_BYTES:
        if not select.select([0], [], [], max(0.0, until - time.monotonic()))[0]:
            return b""
        chunk = os.read(0, _CHUNK)
        if not chunk:
            return content
        content += chunk
    return b""


def _worked_out(content: bytes, settings: Settings, until: float) -> bytes:
    """In the child: the answer's size, the answer, and the talk."""
    import io  # noqa: PLC0415 - built in; only the child needs it

    sys.stderr = io.StringIO()
    try:
        answer = _prepared(content, settings, until)
    except Exception:  # noqa: BLE001 - the traceback goes to the parent's standard error
        sys.excepthook(*sys.exc_info())
        answer = failure(codes.BUG, "a bug in the hook")
    return f"{len(answer)}\n".encode() + answer + sys.stderr.getvalue().encode("utf-8", "replace")


def _prepared(content: bytes, settings: Settings, until: float) -> bytes:  # noqa: ARG001
    from publisher.resolver import prepare  # noqa: PLC0415 - the parent needs none of it
    from publisher.resolver.job import Job  # noqa: PLC0415 - the same
    from publisher.resolver.notes import Notes  # noqa: PLC0415 - the same

    notes = Notes()
    decision = prepare.decide(Job(ads.read(content)), settings, scratch=os.getcwd(), now=time.time(), notes=notes)
    say(notes.all)
    if decision.code:
        return failure(decision.code, decision.message)
    message = {"HookStatusMessage": decision.message} if decision.message else {}
    status: Mapping[str, ads.Value] = {"HookStatusCode": codes.OK, **message}
    return ads.written({**status, **decision.updates})


def _die(attempt: Attempt) -> None:
    """On SIGTERM: no answer, no child left behind."""
    attempt.give_up()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _write(answer: bytes) -> None:
    """One write, whole. Who cannot answer dies by a signal: that puts the job back into the queue, an exit status holds it."""
    try:
        written = os.write(1, answer)
    except OSError:
        written = 0
    if written != len(answer):
        os.kill(os.getpid(), signal.SIGKILL)
