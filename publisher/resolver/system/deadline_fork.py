"""Work that may never end, done in a child process that is killed when its deadline has passed.

A read from a hung CVMFS mount or a silent name server blocks a thread beyond the reach of any timeout, and at worst beyond the
reach of SIGKILL. So a child process does it: its answer comes through a pipe, and a late child is killed and not waited for.
Calls that are started together run at the same time. The child closes the descriptors of its parent's locks, since it would
otherwise hold them for as long as it hangs. Its log lines come through the same pipe.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the core of signal: importing signal costs every job a millisecond
import os
import select
import time

from publisher.contract.errors import ExpectedError
from publisher.resolver.errors import DeadlineError, FetchError, KilledError, ReadError, is_broken
from publisher.resolver.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DONE, _FAILED, _BROKEN, _BUG, _LOG = b"+", b"-", b"=", b"!", b"~"
"""Kinds of frames, their first byte; the size of the content, a line feed and the content follow. Log frames come first."""
_MAX_HEAD_BYTES = 22  # kind, digits, line feed
_CHUNK = 1 << 20  # bytes
_EXIT_TIMEOUT = 0.05  # seconds in which a child that has answered is expected to end
_MAX_DESCRIPTORS = 1024  # this program opens few; the limit may be a million


class ForkedCall:
    """A function that runs in a child process, and its result."""

    def __init__(self, work: Callable[[], bytes], keep: int | None = None) -> None:
        """Start ``work``; its process keeps the descriptor ``keep`` open.

        An OSError or ExpectedError that it raises becomes the error of :meth:`result`.
        """
        self._answer, write = os.pipe()
        self._received, self._has_ended = b"", False
        self._child = os.fork()
        if self._child == 0:
            _run(work, write, keep)
        os.close(write)

    def wait(self, until: float, other: int | None = None) -> bool:
        """Wait for the answer, or until the descriptor ``other`` can be read; return whether the answer has come."""
        descriptors = [self._answer] if other is None else [self._answer, other]
        while not self._has_ended and not _is_complete(self._received):
            if self._answer not in select.select(descriptors, [], [], max(0.0, until - time.monotonic()))[0]:
                return False
            chunk = os.read(self._answer, _CHUNK)
            self._has_ended = not chunk
            self._received = _relay_log(self._received + chunk)
        return True

    def result(self, until: float) -> bytes:
        """Return what the function returned.

        Args:
            until: reading of the monotonic clock at which the child is killed.

        Raises:
            FetchError: the function failed.
            ReadError: it failed since a file system is broken.
            DeadlineError: it did not end in time.
            KilledError: somebody killed the child.
        """
        try:
            if not self.wait(until):
                self.kill()
                raise late()
            status = self._reap()
        finally:
            os.close(self._answer)
        answer = self._received
        kind, (_, _, content) = answer[:1], answer[1:].partition(b"\n")
        if not _is_complete(answer) and os.WIFSIGNALED(status):
            import signal  # noqa: PLC0415 - no warm answer needs it

            name = signal.Signals(os.WTERMSIG(status)).name
            raise KilledError(f"a child process was killed by {name}", hint="check the host's memory and its log")
        if not _is_complete(answer):
            raise RuntimeError(f"a child process ended unexpectedly after {len(answer)} bytes of its answer")
        if kind == _DONE:
            return content
        if kind in (_FAILED, _BROKEN):
            raise (FetchError if kind == _FAILED else ReadError)(content.decode("utf-8", "replace"))
        raise RuntimeError(f"a child process failed unexpectedly: {content.decode('utf-8', 'replace')}")

    def _reap(self) -> int:
        """Let the child end, and return its status; 0 if it has not ended yet.

        A hanging child of its own may keep the pipe open for ever, so the wait is short.
        """
        has_ended = bool(select.select([self._answer], [], [], _EXIT_TIMEOUT)[0])
        return os.waitpid(self._child, 0 if has_ended else os.WNOHANG)[1]

    def kill(self) -> None:
        """Kill the child. One that hangs in the kernel is not waited for."""
        os.kill(self._child, _signal.SIGKILL)
        os.waitpid(self._child, os.WNOHANG)


def late() -> DeadlineError:
    """Return the error of a call that did not end in time."""
    return DeadlineError("no answer in time")


def failure(error: OSError | ExpectedError) -> FetchError:
    """Return the error of a call that failed."""
    broken = is_broken(error) if isinstance(error, OSError) else isinstance(error, ReadError)
    return (ReadError if broken else FetchError)(str(error))


def _frame(kind: bytes, content: bytes) -> bytes:
    """Return a frame of the answer's pipe."""
    return b"%b%d\n%b" % (kind, len(content), content)


def _is_complete(answer: bytes) -> bool:
    """Return whether an answer has all its bytes: its size tells, since the end of the pipe may never come."""
    size = _frame_size(answer)
    return size is not None and len(answer) == size and answer[:1] != _LOG


def _frame_size(answer: bytes) -> int | None:
    """Return the size of the first frame, head included; None while its head is incomplete."""
    head, line_end, _ = answer[:_MAX_HEAD_BYTES].partition(b"\n")
    return len(head) + 1 + int(head[1:]) if line_end else None


def _relay_log(answer: bytes) -> bytes:
    """Write the complete log frames at the beginning of what came, and return the rest."""
    while answer[:1] == _LOG:
        size = _frame_size(answer)
        if size is None or len(answer) < size:
            break
        log.relay(answer[:size].partition(b"\n")[2].decode("utf-8", "replace"))
        answer = answer[size:]
    return answer


def _run(work: Callable[[], bytes], write: int, keep: int | None) -> None:
    """Run the child. It is cut off from the parent's standard streams, which carry the parent's answer."""
    try:
        begin = 3
        for kept in (write,) if keep is None else sorted((write, keep)):
            os.closerange(begin, kept)
            begin = kept + 1
        os.closerange(begin, _MAX_DESCRIPTORS)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        log.redirect(lambda line: _send(write, _frame(_LOG, line.encode("utf-8", "replace"))))
        try:
            answer = _frame(_DONE, work())
        except (OSError, ExpectedError) as error:
            problem = failure(error)
            answer = _frame(_BROKEN if isinstance(problem, ReadError) else _FAILED, str(problem).encode("utf-8", "replace"))
        except Exception as error:  # noqa: BLE001 - a bug must reach the parent and not vanish with the child
            answer = _frame(_BUG, repr(error).encode("utf-8", "replace"))
        _send(write, answer)
    finally:
        os._exit(0)


def _send(write: int, content: bytes) -> None:
    """Write all bytes to a pipe."""
    view = memoryview(content)
    while view:
        view = view[os.write(write, view) :]
