"""The one module that starts other programs.

Every child gets its own session, so that everything it starts can be killed, by :mod:`publisher.contract.reaper` if this process
was killed itself. It gets a deadline, a standard input that is empty unless the caller gives one, and an environment made from an
allow-list: registry credentials, proxy passwords, signing keys and Apptainer's variables of the caller do not reach it. The last
64 KiB of its standard error are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import shlex
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from publisher.contract.reaper import REAPER, kill_session
from publisher.errors import CommandError
from publisher.system.logs import printable, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ")  # nothing else is passed on: APPTAINER_*, DOCKER_*, tokens, PYTHONPATH
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STDERR_BYTES = 64 * 1024
_BUFFER = 1 << 20
_LAST_WORDS = 10.0  # seconds between the end of a program's output and its own
_LAST_LINE = 500  # characters of standard error that an error message repeats


@dataclass(frozen=True)
class CompletedCommand:
    """The result of a program that ended with an accepted status; ``stderr`` is the end of its standard error."""

    status: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True)
class UnixAccount:
    """The account that a program runs as, by numeric ids; supplementary groups are dropped."""

    uid: int
    gid: int


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: allowed variables of this process, a PATH with the sbin directories, and ``extra``."""
    env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    env.setdefault("PATH", _DEFAULT_PATH)
    if "/usr/sbin" not in env["PATH"].split(":"):
        env["PATH"] += ":/usr/sbin:/sbin"
    env.update(extra or {})
    return env


def run(
    argv: Sequence[str],
    *,
    deadline: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    account: UnixAccount | None = None,
    umask: int | None = None,
    stdin: bytes | None = None,
    accept: Sequence[int] = (0,),
    guarded: bool = True,
    on_start: Callable[[Callable[[], None]], None] | None = None,
    watch: Callable[[float, str], None] | None = None,
    watch_interval: float = 30.0,
    name: str | None = None,
    pass_fds: Sequence[int] = (),
) -> CompletedCommand:
    """Run a program to its end.

    Args:
        argv: program and arguments; never a shell line.
        deadline: seconds after which the program and all that it started are killed.
        env: variables that are added to the allowed ones.
        cwd: working directory, None for this process's.
        account: the account that it runs as (needs root), None for this process's.
        umask: permission bits that its new files do not get, None for this process's.
        stdin: bytes for its standard input, None for an empty one.
        accept: exit statuses that are not failures.
        guarded: kill the program if this process is killed or interrupted. Otherwise it goes on to its end, and an interrupt
            (KeyboardInterrupt) waits for that, until the deadline.
        on_start: called with a function that kills the program, for use by another thread.
        watch: called as ``watch(seconds, last_line)`` while an unguarded program runs, with its running time and the last line of
            its standard output so far.
        watch_interval: seconds between two calls of ``watch``.
        name: the program's name in error messages, None for the one in ``argv`` (which may be a wrapper).
        pass_fds: open files that it gets under the same numbers.

    Raises:
        CommandError: the program is missing, passed its deadline, was ended by a signal, or has a status that is not accepted.
    """
    with contextlib.ExitStack() as stack:
        # An unguarded program outlives this process, and a pipe without a reader would end it (SIGPIPE): it writes to a file.
        output = None if guarded else stack.enter_context(tempfile.TemporaryFile())
        child = stack.enter_context(
            _start(
                argv,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE if output is None else output,
                env=env,
                cwd=cwd,
                account=account,
                umask=umask,
                unguarded=None if guarded else deadline,
                name=name,
                pass_fds=pass_fds,
            )
        )
        if on_start is not None:
            on_start(child.kill)
        if output is None or watch is None:
            stdout = child.communicate(stdin, deadline)
        else:
            stdout = child.communicate(stdin, deadline, watch_interval, lambda seconds: watch(seconds, _tail(output)))
        return child.result(stdout if output is None else _content(output), accept)


@contextlib.contextmanager
def feed(
    argv: Sequence[str],
    *,
    deadline: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    name: str | None = None,
    account: UnixAccount | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[IO[bytes]]:
    """Run a program that reads a stream: yield its standard input, unbuffered, and wait for its end on the way out.

    The program is killed if the body raises or the deadline (seconds, from start to end) passes. A ``BrokenPipeError`` of the
    body means that the program stopped reading: it is reported as the program's failure, even if its exit status is 0.

    Args:
        argv: program and arguments.
        deadline: seconds after which the program is killed.
        env: variables that are added to the allowed ones.
        cwd: working directory, None for this process's.
        name: the program's name in error messages, None for the one in ``argv`` (which may be a wrapper).
        account: the account that it runs as (needs root), None for this process's.
        pass_fds: open files that it gets under the same numbers; it opens them as ``/dev/fd/N``, whatever directory they are in.

    Raises:
        CommandError: as :func:`run`.
    """
    name = name or _name(argv)
    start = _start(
        argv, env=env, cwd=cwd, name=name, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, account=account, pass_fds=pass_fds
    )
    with start as child:
        pipe = child.process.stdin
        if pipe is None:  # _start opened it
            raise AssertionError
        unread = False
        with child.killed_after(deadline):
            try:
                yield pipe
            except BrokenPipeError:
                unread = True
            pipe.close()
            child.process.wait()
        child.check(deadline)
        if unread:
            raise CommandError(f"{name} ended before it had read everything", status=0)


@contextlib.contextmanager
def tap(
    argv: Sequence[str],
    *,
    deadline: float,
    env: Mapping[str, str] | None = None,
    account: UnixAccount | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[IO[bytes]]:
    """Run a program that writes a stream: yield its standard output, buffered, and wait for its end on the way out.

    What the body leaves unread is read and discarded. The program is killed if the deadline (seconds, from start to end) passes.
    ``account`` and ``pass_fds`` are as for :func:`feed`; the account can open ``/dev/stdout`` too.

    Raises:
        CommandError: as :func:`run`. It goes before an exception of the body, which may only have met the end of a cut stream.
    """
    read, write = os.pipe()
    enlarge_pipe(write)
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(os.fdopen(read, "rb", _BUFFER))
        try:
            if account is not None:
                os.fchown(write, account.uid, account.gid)
            child = stack.enter_context(
                _start(argv, env=env, cwd=None, stdin=subprocess.DEVNULL, stdout=write, account=account, pass_fds=pass_fds)
            )
        finally:
            os.close(write)
        with child.killed_after(deadline):
            try:
                yield stream
            except Exception:
                _discard(stream)
                child.process.wait()
                child.check(deadline)
                raise
            _discard(stream)
            child.process.wait()
        child.check(deadline)


@contextlib.contextmanager
def converse(argv: Sequence[str], *, name: str | None = None, pass_fds: Sequence[int] = ()) -> Iterator[Conversation]:
    """Run a program that reads questions and writes answers; it is killed at the end of the block.

    Args:
        argv: program and arguments.
        name: the program's name in error messages, None for the one in ``argv``.
        pass_fds: open files that it gets under the same numbers.

    Raises:
        CommandError: the program cannot be started.
    """
    with _start(argv, env=None, cwd=None, name=name, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=pass_fds) as child:
        yield Conversation(child)


def enlarge_pipe(descriptor: int) -> None:
    """Let a pipe hold 1 MiB, unless a user's limit forbids it; with the kernel's 64 KiB both ends wait for each other."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _BUFFER)


def _tail(file: IO[bytes]) -> str:
    """Return the last line of a file that another process is writing; an empty text if there is none."""
    size = os.fstat(file.fileno()).st_size
    text = os.pread(file.fileno(), _STDERR_BYTES, max(0, size - _STDERR_BYTES)).decode("utf-8", "replace")
    return _last_line(text) if text.strip() else ""


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _discard(stream: IO[bytes]) -> None:
    while stream.read(_BUFFER):
        pass


class _Child:
    """A started program, the file that receives its standard error, and whether this process killed it."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, stderr: IO[bytes]) -> None:
        self.process = process
        self.name = name
        self.stderr = stderr
        self.killed = False

    def kill(self) -> None:
        """Kill the program and everything that it started (SIGKILL), and wait for its end."""
        self.killed = True
        kill_session(self.process.pid)
        self.process.wait()

    def communicate(
        self, stdin: bytes | None, deadline: float, interval: float = 0.0, watch: Callable[[float], None] | None = None
    ) -> bytes:
        """Return the program's standard output (if it is a pipe) at its end; kill it and raise CommandError at its deadline.

        Until then, ``watch`` is called with the running time at every interval.
        """
        started = time.monotonic()
        try:
            while watch is not None and self.process.poll() is None and time.monotonic() + interval < started + deadline:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(interval)
                    break
                watch(time.monotonic() - started)
            return self.process.communicate(stdin, timeout=max(0.0, started + deadline - time.monotonic()))[0]
        except subprocess.TimeoutExpired:
            self.kill()
            raise CommandError(f"{self.name} did not end within {deadline:g} s and was killed") from None

    @contextlib.contextmanager
    def killed_after(self, deadline: float) -> Iterator[None]:
        """Kill the program if the block lasts longer than ``deadline`` seconds."""
        timer = threading.Timer(deadline, self.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def wait_through_interrupts(self, until: float) -> None:
        """Wait for the program's end in spite of KeyboardInterrupt, and kill it at ``until`` (of the monotonic clock)."""
        while self.process.poll() is None:
            remaining = until - time.monotonic()
            if remaining <= 0:
                self.kill()
                return
            with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                self.process.wait(remaining)

    def check(self, deadline: float) -> None:
        """Raise CommandError if the program was killed at its deadline or has failed."""
        if self.killed:
            raise CommandError(f"{self.name} did not end within {deadline:g} s and was killed")
        self.result(b"", (0,))

    def result(self, stdout: bytes, accept: Sequence[int]) -> CompletedCommand:
        """Return the result of the program, which has ended; raise CommandError if its status is not accepted."""
        status = self.process.returncode
        self.stderr.seek(max(0, self.stderr.seek(0, os.SEEK_END) - _STDERR_BYTES))
        stderr = self.stderr.read().decode("utf-8", "replace")
        if status not in accept:
            how = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
            raise CommandError(f"{self.name} {how}: {_last_line(stderr)}", status=status, stderr=stderr)
        return CompletedCommand(status, stdout, stderr)


class Conversation:
    """A program that answers; one thread writes and reads, any thread may kill it.

    Attributes:
        output: the program's standard output.
    """

    def __init__(self, child: _Child) -> None:
        self._child = child
        if child.process.stdin is None or child.process.stdout is None:  # converse() opened them
            raise AssertionError
        self._input = child.process.stdin
        self.output = io.BufferedReader(cast("io.RawIOBase", child.process.stdout))  # which is not buffered yet

    def write(self, data: bytes) -> None:
        """Write all of the bytes to the program's standard input. Raises BrokenPipeError if it has ended."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._input.write(rest) :]

    def kill(self) -> None:
        """Kill the program and everything that it started, and wait for its end."""
        self._child.kill()

    def ended(self) -> CommandError:
        """Return how the program ended, once its output has ended; it is killed if it goes on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.process.wait(_LAST_WORDS)
        if self._child.process.poll() is None or self._child.killed:
            self.kill()
            return CommandError(f"{self._child.name} was killed")
        try:
            self._child.result(b"", ())
        except CommandError as error:
            return error
        raise AssertionError


@contextlib.contextmanager
def _start(
    argv: Sequence[str],
    *,
    stdin: int,
    stdout: int | IO[bytes],
    name: str | None = None,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    account: UnixAccount | None = None,
    umask: int | None = None,
    unguarded: float | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[_Child]:
    """Start a program and yield it; on the way out it is ended, and the log gets a line.

    ``unguarded`` is the number of seconds that the program may go on for, whatever becomes of this process; None if it is killed
    at the end of the block.
    """
    with tempfile.TemporaryFile() as stderr:
        REAPER.start()
        started = time.monotonic()
        process = _spawn(argv, (stdin, stdout, stderr), env=env, cwd=cwd, account=account, umask=umask, pass_fds=pass_fds)
        child = _Child(process, name or _name(argv), stderr)
        try:
            with REAPER.guard(process.pid) if unguarded is None else contextlib.nullcontext():
                try:
                    yield child
                finally:
                    if unguarded is not None:
                        child.wait_through_interrupts(started + unguarded)
                    elif process.poll() is None:
                        child.kill()
        finally:
            _log_end(argv, time.monotonic() - started, child)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


def _spawn(
    argv: Sequence[str],
    streams: tuple[int, int | IO[bytes], IO[bytes]],
    *,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    account: UnixAccount | None,
    umask: int | None,
    pass_fds: Sequence[int],
) -> subprocess.Popen[bytes]:
    """Start a program with its standard input, output and error; raise CommandError if it cannot be started."""
    try:
        return subprocess.Popen(
            list(argv),
            bufsize=0,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            env=environment(env),
            cwd=cwd,
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
            umask=-1 if umask is None else umask,
            pass_fds=pass_fds,
        )
    except OSError as error:
        reason = f"{argv[0]} cannot be started: {error.strerror}"
        raise CommandError(reason, hint="ci/install-system installs what is needed") from error


def _log_end(argv: Sequence[str], seconds: float, child: _Child) -> None:
    if _log.isEnabledFor(logging.DEBUG):
        command, status = redact(shlex.join(argv)), child.process.returncode
        fields = {"argv": command, "duration": round(seconds, 3), "status": status, "killed": child.killed}
        _log.debug("%s ended with status %s after %.3f s", command, status, seconds, extra=fields)


def _name(argv: Sequence[str]) -> str:
    return argv[0].rpartition("/")[2]


def _last_line(stderr: str) -> str:
    """Return the last line of a program's standard error that is not blank."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return printable(lines[-1][:_LAST_LINE]) if lines else "it wrote nothing to its standard error"
