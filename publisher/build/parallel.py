"""Several builds on this host at a time, each in a process of its own.

A process is reused for one build after the other, because its start costs as much CPU time as a very small image. One that ends
by itself (out of memory, a crash of a library) fails the build that it had, and no other. All of them end with this process,
however it ends. Until they have, they hold the lock of the builds, so that the next run does not meet them.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.build.build_process import PROGRAM, Step
from publisher.build.builder import Builder
from publisher.contract import files
from publisher.errors import BuildError, CommandError, StateDirectoryError
from publisher.state.built import BuiltImage
from publisher.system import command
from publisher.system.durable import failures

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from publisher.build.builder import BuildRequest, UncheckedSif
    from publisher.build.local import LocalBuilder
    from publisher.system.command import Conversation

_log = logging.getLogger(__name__)

MEMORY = 400 << 20
"""Bytes of memory that a build takes at most beside its test run: planning, or mksquashfs with its caches and this program."""
_DISK = 4 << 30
"""Bytes of disk that a build should have, by default."""
_LEFT_BEHIND = 60.0
"""Seconds within which the processes of a killed run end."""


def default_builds(*, cores: int, memory: int, disk: int, test_memory: int) -> int:
    """Return how many builds this host does at a time.

    Args:
        cores: processors that this process may use.
        memory: bytes of memory that are available.
        disk: free bytes of the disk that has layers and builds.
        test_memory: bytes of memory that a test run may take.
    """
    return max(1, min(cores, memory // (MEMORY + test_memory), disk // _DISK))


@contextlib.contextmanager
def lock_builds(work: Path) -> Iterator[int]:
    """Hold the lock of a directory of builds, once the processes of a killed run have ended; yield its descriptor.

    Raises:
        StateDirectoryError: they do not end, or the lock cannot be made.
    """
    with contextlib.ExitStack() as stack:
        with failures(StateDirectoryError, f"{work} cannot be locked"):
            work.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                descriptor = stack.enter_context(files.locked(str(work / "lock"), deadline=_LEFT_BEHIND))
            except TimeoutError:
                hint = f"nothing was changed; fuser {work / 'lock'} says which they are. Kill them, then run again"
                raise StateDirectoryError("processes of a killed run are still building", hint=hint) from None
        yield descriptor


class ParallelBuilder(Builder):
    """A builder that lets processes build, each by a copy of a local builder.

    Args:
        local: builds one image.
        places: number of builds that are under way at a time.
        lock: descriptor of :func:`lock_builds`, which the processes hold too.

    Attributes:
        local: the builder of which each process has a copy.
    """

    def __init__(self, local: LocalBuilder, places: int, lock: int) -> None:
        self.parallel = places + 1  # one more, because a build that is finished is still stored
        self.local = local
        self._lock_descriptor = lock
        self._max_processes = places
        self._places = threading.Semaphore(places)
        self._lock = threading.Lock()
        self._idle: list[_BuildProcess] = []
        self._busy: set[_BuildProcess] = set()
        self._contents: dict[str, threading.Lock] = {}
        self._stops = 0

    def start(self, images: int) -> None:
        """Start the processes that so many images need, which load this program while the first layers are fetched.

        Raises:
            CommandError: a process cannot be started.
        """
        with self._lock:
            for _ in range(min(images, self._max_processes) - len(self._idle) - len(self._busy)):
                self._idle.append(_BuildProcess(self.local, self._lock_descriptor))

    def build(self, request: BuildRequest, progress: Callable[[str, int, int], None]) -> BuiltImage:
        """Build one image as :meth:`Builder.build` describes, when there is a place for it.

        Raises:
            BuildError: also if its process ended, or was ended by :meth:`stop`.
        """
        stops = self._stops
        with self._lock:
            content = self._contents.setdefault(request.image.content, threading.Lock())
        with content, self._places, self._process(stops) as process:  # equal contents are built into one directory
            try:
                return process.build(request, progress)
            except CommandError as error:
                reason = f"the process that built it ended: {error.reason}"
                hint = "if it was killed, look in the kernel's log for a lack of memory, and set `builds` lower"
                raise BuildError(reason, image=request.name, hint=error.hint or hint) from error

    def unchecked(self, request: BuildRequest) -> UncheckedSif | None:
        """See :meth:`Builder.unchecked`."""
        return self.local.unchecked(request)

    def stop(self) -> None:
        """End the builds that are under way, and those that wait for their place."""
        with self._lock:
            self._stops += 1
            for process in self._busy:
                process.kill()

    def close(self) -> None:
        """End all processes; they are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def discard(self, request: BuildRequest) -> None:
        """Delete the finished build of a request, after it was published."""
        self.local.discard(request)

    def sweep(self, wanted: Collection[str], unknown: Collection[str] = ()) -> None:
        """See :meth:`publisher.build.builder.Builder.sweep`."""
        self.local.sweep(wanted, unknown)

    @contextlib.contextmanager
    def _process(self, stops: int) -> Iterator[_BuildProcess]:
        """Yield an idle process, or a new one; it is kept unless it failed. ``stops`` is the number of stops before the call."""
        with self._lock:
            if stops != self._stops:
                raise BuildError("the build was stopped before it began")
            process = self._idle.pop() if self._idle else None
            if process is None:
                process = _BuildProcess(self.local, self._lock_descriptor)
            self._busy.add(process)
        try:
            yield process
        finally:
            with self._lock:
                self._busy.discard(process)
                if process.is_usable:
                    self._idle.append(process)
            if not process.is_usable:
                process.close()


class _BuildProcess:
    """A process that builds. Raises CommandError where it cannot be started."""

    def __init__(self, local: LocalBuilder, lock: int) -> None:
        package = Path(__file__).parents[2]
        self.is_usable = True
        self._stack = contextlib.ExitStack()
        self._conversation: Conversation = self._stack.enter_context(
            command.converse([sys.executable, "-I", "-c", PROGRAM, str(package)], name="the build process", pass_fds=(lock,))
        )
        self._send((logging.getLogger("publisher").getEffectiveLevel(), local))

    def build(self, request: BuildRequest, progress: Callable[[str, int, int], None]) -> BuiltImage:
        """Build one image.

        Raises:
            CommandError: the process ended.
            Exception: whatever the builder raised.
        """
        self.is_usable = False
        self._send(request)
        while True:
            value = self._receive()
            if isinstance(value, Step):
                progress(value.step, value.done, value.total)
            elif isinstance(value, logging.LogRecord):
                logging.getLogger(value.name).handle(value)
            else:
                break
        self.is_usable = True
        if isinstance(value, BuiltImage):
            return value
        if isinstance(value, Exception):
            raise value
        raise AssertionError(value)

    def kill(self) -> None:
        self._conversation.kill()

    def close(self) -> None:
        self._stack.close()

    def _send(self, value: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is noticed where its answer is read
            self._conversation.write(pickle.dumps(value))

    def _receive(self) -> object:
        try:
            return pickle.load(self._conversation.output)  # noqa: S301 - a process of this program, see build_process
        except (EOFError, OSError, pickle.UnpicklingError):
            raise self._conversation.ended() from None
