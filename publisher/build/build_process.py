"""A process that builds images for :class:`publisher.build.parallel.ParallelBuilder`, one after the other.

It reads pickled values from its standard input: the level of the log and the builder, then requests. To each request it writes
to its standard output: any number of :class:`Step` and :class:`logging.LogRecord`, then a
:class:`publisher.state.built.BuiltImage` or the exception that ended the build. It ends with its input. Both ends are processes
of the same account of the same host, on anonymous pipes.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
import sys
import traceback
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from publisher.errors import PublisherError

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.build.builder import Builder

PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from publisher.build.build_process import main; main()"
"""What the process runs; its argument is the directory that has this package."""


@dataclass(frozen=True)
class Step:
    """A report of progress, as the builder gives it."""

    step: str
    done: int
    total: int


class BuildProcessBug(Exception):  # noqa: N818 - it is no expected failure
    """An unexpected exception in a build process, with its traceback."""


def main() -> None:
    """Serve this process's standard input and output, which no code of a build uses otherwise."""
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Build what is asked for until the requests end."""

    def answer(value: object) -> None:
        answers.write(pickle.dumps(value))
        answers.flush()

    with contextlib.suppress(EOFError):
        level, builder = pickle.load(requests)  # noqa: S301 - from the publisher itself
        logger = logging.getLogger("publisher")
        logger.setLevel(level)
        logger.addHandler(_Forwarding(answer))
        logger.propagate = False
        while True:
            answer(_build(builder, pickle.load(requests), answer))  # noqa: S301 - likewise


def _build(builder: Builder, request: Any, answer: Callable[[object], None]) -> object:
    """Return a build, or the exception that ended it; a bug comes as its traceback."""
    try:
        return builder.build(request, lambda *step: answer(Step(*step)))
    except PublisherError as error:
        return error
    except Exception as error:  # noqa: BLE001 - the other process raises it
        return BuildProcessBug("".join(traceback.format_exception(error)))


class _Forwarding(logging.Handler):
    """A handler that answers with each record, made such that it can be pickled."""

    def __init__(self, answer: Callable[[object], None]) -> None:
        super().__init__()
        self._answer = answer

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        record = copy.copy(record)
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text, record.exc_info = logging.Formatter().formatException(record.exc_info), None
        self._answer(record)
