"""The one door to other programs.

Every child gets its own session (so that all it starts can be killed, by :mod:`publisher.contract.reaper` where this process was killed
itself), a deadline, a standard input that is closed unless given, and an environment made from an allow-list: registry
credentials, proxies' passwords, signing keys and Apptainer's own variables of the caller do not reach it. What a child prints
is kept to its last 64 KiB.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from publisher.contract.reaper import REAPER, kill_session
from publisher.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ")  # all else stays here: APPTAINER_*, DOCKER_*, tokens, PYTHONPATH
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = 64 * 1024
_BUFFER = 1 << 20


@dataclass(frozen=True)
class CompletedCommand:
    """A program that has ended with status 0, or with a status the caller wanted to see."""

    status: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True)
class UnixAccount:
    """The user a child runs as: numeric ids; supplementary groups are dropped."""

    uid: int
    gid: int


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment a child gets: the allow-list of this process, a PATH that has the sbin directories, and ``extra``."""
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
    given: bytes | None = None,
    accept: Sequence[int] = (0,),
    guarded: bool = True,
    started: Callable[[Callable[[], None]], None] | None = None,
) -> CompletedCommand:
    """Run a program to its end.

    Args:
        argv: program and arguments; never a shell line.
        deadline: seconds after which it is killed with all it started.
        env: added to the allow-listed environment.
        cwd: working directory, this process's when None.
        account: the user it runs as (needs root), this process's when None.
        umask: permission bits its new files do not get, this process's when None.
        given: what it reads from its standard input, nothing when None.
        accept: exit statuses that are not failures.
        guarded: it is ended where this process is killed or interrupted; otherwise it goes on to its end, which an
            interrupt (KeyboardInterrupt) waits for, until the deadline.
        started: is given what kills it, for another thread that may want to.

    Raises:
        CommandError: missing program, deadline, signal, or a status that is not accepted.
    """
    stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
    with contextlib.ExitStack() as stack:
        # A pipe that nobody reads any more would end a program that is to go on (SIGPIPE).
        kept = None if guarded else stack.enter_context(tempfile.TemporaryFile())
        stdout = subprocess.PIPE if kept is None else kept
        child = stack.enter_context(
            _start(
                argv,
                env=env,
                cwd=cwd,
                account=account,
                umask=umask,
                stdin=stdin,
                stdout=stdout,
                unguarded=None if guarded else deadline,
            )
        )
        if started is not None:
            started(child.kill)
        try:
            out, _ = child.process.communicate(given, timeout=deadline)
        except subprocess.TimeoutExpired:
            child.kill()
            raise CommandError(f"{argv[0]} did not end within {deadline:g} s and was killed") from None
        if kept is not None:
            kept.seek(0)
            out = kept.read()
        return child.completed(out, accept)


@contextlib.contextmanager
def feed(
    argv: Sequence[str],
    *,
    deadline: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    name: str | None = None,
) -> Iterator[IO[bytes]]:
    """Run a program that reads a stream: yields its standard input, unbuffered, and waits for it on the way out.

    The program is killed when the body raises or the deadline (seconds, from start to end) passes. A body that fails with
    ``BrokenPipeError`` because the program gave up is reported as the program's failure, with what it said; also where the
    program thinks it has read all there is and ends with status 0. ``name`` is what failures call it, where it is started by
    another program; otherwise its own.

    Raises:
        CommandError: as :func:`run`.
    """
    name = name or _name(argv)
    with _start(argv, env=env, cwd=cwd, name=name, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        timer = threading.Timer(deadline, child.kill)
        timer.daemon = True
        timer.start()
        stdin = child.process.stdin
        if stdin is None:  # asked for above
            raise AssertionError
        unread = False
        try:
            try:
                yield stdin
            except BrokenPipeError:
                unread = True
            stdin.close()
            child.process.wait()
        finally:
            timer.cancel()
        child.checked(deadline)
        if unread:
            raise CommandError(f"{name} ended before it had read everything", status=0)


@contextlib.contextmanager
def tap(argv: Sequence[str], *, deadline: float, env: Mapping[str, str] | None = None) -> Iterator[IO[bytes]]:
    """Run a program that writes a stream: yields its standard output, buffered, and waits for it on the way out.

    What the body leaves unread is read and thrown away. The program is killed when the body raises or the deadline (seconds,
    from start to end) passes.

    Raises:
        CommandError: as :func:`run`; before what the body made of a stream that broke off.
    """
    with _start(argv, env=env, cwd=None, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        timer = threading.Timer(deadline, child.kill)
        timer.daemon = True
        timer.start()
        if child.process.stdout is None:  # asked for above
            raise AssertionError
        try:
            with io.BufferedReader(child.process.stdout, _BUFFER) as stream:  # type: ignore[type-var]  # a raw file, as bufsize=0 says
                try:
                    yield stream
                except Exception:
                    _drain(stream)
                    child.process.wait()
                    child.checked(deadline)
                    raise
                _drain(stream)
            child.process.wait()
        finally:
            timer.cancel()
        child.checked(deadline)


def _drain(stream: IO[bytes]) -> None:
    while stream.read(_BUFFER):
        pass


class _Child:
    """A started program, the file that takes its standard error, and whether we killed it."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, stderr: IO[bytes]) -> None:
        self.process = process
        self.name = name
        self.stderr = stderr
        self.killed = False

    def kill(self) -> None:
        """SIGKILL to all that the program started."""
        self.killed = True
        kill_session(self.process.pid)
        self.process.wait()

    def outlast(self, until: float) -> None:
        """Wait for its end, whatever interrupts come meanwhile, and kill it at ``until`` (of the monotonic clock)."""
        while self.process.poll() is None:
            left = until - time.monotonic()
            if left <= 0:
                self.kill()
                return
            with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                self.process.wait(left)

    def checked(self, deadline: float) -> None:
        """Raises CommandError where it was killed at its deadline, or failed."""
        if self.killed:
            raise CommandError(f"{self.name} did not end within {deadline:g} s and was killed")
        self.completed(b"", (0,))

    def completed(self, stdout: bytes, accept: Sequence[int]) -> CompletedCommand:
        status = self.process.returncode
        self.stderr.seek(max(0, self.stderr.seek(0, os.SEEK_END) - _KEPT))
        stderr = self.stderr.read().decode("utf-8", "replace")
        if status not in accept:
            how = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
            raise CommandError(f"{self.name} {how}: {_last_words(stderr)}", status=status, stderr=stderr)
        return CompletedCommand(status, stdout, stderr)


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
) -> Iterator[_Child]:
    """``unguarded``: seconds that it may go on for, whatever becomes of us; None where it ends with the body."""
    with tempfile.TemporaryFile() as stderr:
        REAPER.start()
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                list(argv),
                bufsize=0,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=environment(env),
                cwd=cwd,
                start_new_session=True,
                user=None if account is None else account.uid,
                group=None if account is None else account.gid,
                extra_groups=None if account is None else [],
                umask=-1 if umask is None else umask,
            )
        except OSError as error:
            raise CommandError(
                f"{argv[0]} cannot be started: {error.strerror}", hint="ci/install-system installs what is needed"
            ) from error
        child = _Child(process, name or _name(argv), stderr)
        try:
            with REAPER.guard(process.pid) if unguarded is None else contextlib.nullcontext():
                try:
                    yield child
                finally:
                    if unguarded is not None:
                        child.outlast(started + unguarded)
                    elif process.poll() is None:
                        child.kill()
        finally:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


def _name(argv: Sequence[str]) -> str:
    return argv[0].rpartition("/")[2]


def _last_words(stderr: str) -> str:
    """The last line of a program's standard error that says something."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "it said nothing"
