"""The command ``pelican``, where a site wants its own client to move the bytes: ``pelican object get``.

It is believed no more than a server is. It gets the arguments that stand here and a part of the environment, a process group that
is killed as a whole, also when this process is killed, and a directory of its own, since a killed one leaves hidden files behind.
What it wrote is read back and checked like all else. https://docs.pelicanplatform.org, client commands.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time

from publisher.contract.reaper import Reaper
from publisher.resolver.errors import FetchError
from publisher.resolver.system import path_probe
from publisher.resolver.transfer import token
from publisher.resolver.transfer.sources import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from publisher.resolver.transfer.sources import NetworkOptions
    from publisher.resolver.transfer.watchdog import TransferDeadline

_NAME = "pelican"
_DIRECTORY = "pelican"
_LOOK_IN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_POLL = 0.05  # seconds
_EARLY = 0.3  # seconds: who waits for this process until the deadline kills it then, and it has things to end and to remove
_SPARE = 1 << 20  # bytes that any of its files may have: settings, statistics
_LAST_LINES = 300  # characters of what it said that are repeated
_PASSED = (
    *("PATH", "HOME", "USER", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "X509_CERT_DIR", "XDG_RUNTIME_DIR"),
    *("BEARER_TOKEN", "BEARER_TOKEN_FILE", "_CONDOR_CREDS"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
)
"""Variables that it gets, and those that begin with ``PELICAN_``."""


class PelicanCommand(Source):
    """Objects below a URL of ``pelican://``.

    Args:
        program: path of the command.
        text: the URL.
        network: how the network is used.
    """

    local = False
    brings = True

    def __init__(self, program: str, text: str, network: NetworkOptions) -> None:
        super().__init__(text)
        self.network = network
        self._program = program

    def bring(self, name: str, size: int, pace: TransferDeadline, take: Callable[[str], None]) -> None:
        """See :meth:`Source.bring`. Raises OSError when there is nowhere to write."""
        problem = self._problem(name, size, pace, take)
        if problem is not None:
            if pace.left() < _EARLY:  # what becomes of a failure depends on whose time is over, and that is told by the clock
                time.sleep(max(0.0, pace.left()))
            raise FetchError(f"{name}: the command pelican: {problem}")

    def _problem(self, name: str, size: int, pace: TransferDeadline, take: Callable[[str], None]) -> str | None:
        """Why there is nothing to take, None where it was taken."""
        with _directory(self.network.root) as directory, _reaper() as reaper:
            path = os.path.join(directory, "object")
            said = os.path.join(directory, "said")
            argv = [self._program, "object", "get", f"{self.text}/{name}", path]
            process = _started(argv, _environment(self.network.ca), directory, said)
            with reaper.guard(process.pid):
                try:
                    problem = _ended(process, directory, size, pace)
                finally:
                    _kill(process)
            if problem is None and process.returncode != 0:
                problem = f"status {process.returncode}: {_last_of(said)}"
            if problem is None and (os.path.islink(path) or not os.path.isfile(path)):
                problem = "it wrote nothing"
            if problem is None:
                take(path)
            return problem


def command() -> str | None:
    """Path of the command, None where there is none."""
    return path_probe.find_program((_NAME,))


@contextlib.contextmanager
def _reaper() -> Iterator[Reaper]:
    """Run a reaper during the block, which kills the command if this process is killed.

    Raises:
        FetchError: the reaper's shell cannot be started.
    """
    reaper = Reaper()
    try:
        reaper.start()
    except OSError as error:
        raise FetchError(f"{error.filename} cannot be started: {error.strerror}") from None
    with contextlib.closing(reaper):
        yield reaper


def _environment(ca: str) -> dict[str, str]:
    """What it gets of ours, and the setting ``ca`` in the only way that it knows (crypto/x509 of Go)."""
    passed = {key: value for key, value in os.environ.items() if key in _PASSED or key.startswith("PELICAN_")}
    return {**passed, "SSL_CERT_DIR" if os.path.isdir(ca) else "SSL_CERT_FILE": ca} if ca else passed


def _started(command: Sequence[str], environment: dict[str, str], directory: str, said: str) -> subprocess.Popen[bytes]:
    """A process group of its own that writes what it says into a file. Raises FetchError where it does not start."""
    with open(said, "wb") as file:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=directory,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise FetchError(f"the command {command[0]} does not start: {error.strerror}") from None


def _ended(process: subprocess.Popen[bytes], directory: str, size: int, pace: TransferDeadline) -> str | None:
    """Wait; why it has to be killed, None when it ended by itself. Its files may not grow beyond what they should be."""
    with contextlib.suppress(ProcessLookupError):
        most = max(size, _SPARE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
    before = 0
    while process.poll() is None:
        now = _bytes_in(directory)
        pace.add(max(0, now - before))
        before = max(before, now)
        problem = pace.problem(_EARLY)
        if problem is not None:
            return problem
        time.sleep(_POLL)
    return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """It and all that it started, also what is left when it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _directory(root: str | None) -> Iterator[str]:
    """A directory of its own, locked; those of killed processes go on the way. Raises OSError."""
    above = os.path.join(root or tempfile.gettempdir(), _DIRECTORY)
    os.makedirs(above, mode=0o700, exist_ok=True)
    everybodys = os.open(above, _LOOK_IN)
    try:
        fcntl.flock(everybodys, fcntl.LOCK_EX)  # or another one sweeps ours before it is locked
        _sweep(above)
        path = tempfile.mkdtemp(dir=above)
        descriptor = os.open(path, _LOOK_IN)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(everybodys)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _sweep(above: str) -> None:
    for name in os.listdir(above):
        path = os.path.join(above, name)
        with contextlib.suppress(OSError):
            descriptor = os.open(path, _LOOK_IN)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _bytes_in(directory: str) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:  # files come and go
        total = sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    return total


def _last_of(path: str) -> str:
    with open(path, "rb") as file:
        text = file.read(_SPARE).decode(errors="replace")
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return token.redact(line, os.environ)[-_LAST_LINES:]  # it names URLs, and there may be a token in them
