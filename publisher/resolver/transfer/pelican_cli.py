"""Downloads with the command ``pelican object get``, for sites that want their own client to move the bytes.

The command is trusted no more than a server. It gets fixed arguments, a part of the environment, and a process group that is
killed as a whole, also when this process is killed. It runs in a directory of its own, since a killed one leaves hidden files
behind. Its output is read back and checked like any download. https://docs.pelicanplatform.org, client commands.
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
from publisher.resolver.system import log, path_probe
from publisher.resolver.transfer import token
from publisher.resolver.transfer.sources import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from publisher.resolver.transfer.sources import NetworkOptions
    from publisher.resolver.transfer.watchdog import TransferDeadline

_PROGRAM = "pelican"
_DIRECTORY = "pelican"  # in the cache
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_POLL_INTERVAL = 0.05  # seconds
_MARGIN = 0.3  # seconds before the deadline, at which the parent kills this process, that cleaning up needs
_MIN_FILE_LIMIT = 1 << 20  # bytes that any of its files may have: settings, statistics
_MAX_OUTPUT = 300  # characters of its output that a message repeats
_ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "X509_CERT_DIR"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
)
"""Variables that the command gets, besides those that begin with ``PELICAN_``."""
_TOKENS = ("BEARER_TOKEN", "BEARER_TOKEN_FILE", "_CONDOR_CREDS", "XDG_RUNTIME_DIR")
"""Variables that it also gets for a federation with a ``token-issuer``."""


class PelicanCommand(Source):
    """A route to the objects below a ``pelican://`` URL through the command.

    Args:
        program: path of the command.
        url: the URL.
        network: how the network is used.
    """

    local = False
    downloads_itself = True

    def __init__(self, program: str, url: str, network: NetworkOptions) -> None:
        super().__init__(url)
        self.network = network
        self._program = program
        host, _, prefix = url.partition("://")[2].partition("/")
        self._gets_tokens = bool(network.issuers(host, f"/{prefix}"))

    def download(self, name: str, size: int, deadline: TransferDeadline, adopt: Callable[[str], None]) -> None:
        """Download a whole file; see :meth:`Source.download`. Raise OSError if there is no directory to write to."""
        problem = self._run(name, size, deadline, adopt)
        if problem is not None:
            if deadline.left() < _MARGIN:  # the clock tells whose time has run out, so the deadline is awaited
                time.sleep(max(0.0, deadline.left()))
            raise FetchError(f"{name}: the command pelican: {problem}")

    def _run(self, name: str, size: int, deadline: TransferDeadline, adopt: Callable[[str], None]) -> str | None:
        """Run the command and hand its file to ``adopt``; return why there is no file, None if there is one."""
        begun = time.monotonic()
        with _working_directory(self.network.root) as directory, _reaper() as reaper:
            path = os.path.join(directory, "object")
            output = os.path.join(directory, "output")
            argv = [self._program, "object", "get", f"{self.label}/{name}", path]
            process = _start(argv, self._environment(), directory, output)
            with reaper.guard(process.pid):
                try:
                    problem = _wait(process, directory, size, deadline)
                finally:
                    _kill(process)
            log.debug("%s: status %s after %.2f s", " ".join(argv), process.returncode, time.monotonic() - begun)
            if problem is None and process.returncode != 0:
                problem = f"status {process.returncode}: {_last_output(output)}"
            if problem is None and (os.path.islink(path) or not os.path.isfile(path)):
                problem = "no file was written"
            if problem is None:
                adopt(path)
            return problem

    def _environment(self) -> dict[str, str]:
        """Return the environment of the command; it takes further certificates only from variables, as programs in Go do."""
        names, ca = {*_ENVIRONMENT, *(_TOKENS if self._gets_tokens else ())}, self.network.ca
        environment = {key: value for key, value in os.environ.items() if key in names or key.startswith("PELICAN_")}
        return {**environment, "SSL_CERT_DIR" if os.path.isdir(ca) else "SSL_CERT_FILE": ca} if ca else environment


def find_program() -> str | None:
    """Return the path of the command, or None if it is not installed."""
    return path_probe.find_program((_PROGRAM,))


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


def _start(argv: Sequence[str], environment: dict[str, str], directory: str, output: str) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own, with its output in a file. Raise FetchError if it cannot be started."""
    with open(output, "wb") as file:
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=directory,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise FetchError(f"the command {argv[0]} cannot be started: {error.strerror}") from None


def _wait(process: subprocess.Popen[bytes], directory: str, size: int, deadline: TransferDeadline) -> str | None:
    """Wait for the command; return why it must be killed, None if it ended by itself. The size of its files is limited."""
    with contextlib.suppress(ProcessLookupError):
        limit = max(size, _MIN_FILE_LIMIT)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    counted = 0
    while process.poll() is None:
        written = _bytes_in(directory)
        deadline.add(max(0, written - counted))
        counted = max(counted, written)
        problem = deadline.problem(_MARGIN)
        if problem is not None:
            return problem
        time.sleep(_POLL_INTERVAL)
    return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the command and its children, also those that are left after it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _working_directory(root: str | None) -> Iterator[str]:
    """Yield a locked temporary directory, and remove those of killed processes. Raise OSError."""
    parent = os.path.join(root or tempfile.gettempdir(), _DIRECTORY)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    parent_descriptor = os.open(parent, _OPEN_DIRECTORY)
    try:
        fcntl.flock(parent_descriptor, fcntl.LOCK_EX)  # otherwise another process may sweep ours before it is locked
        _sweep(parent)
        path = tempfile.mkdtemp(dir=parent)
        descriptor = os.open(path, _OPEN_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(parent_descriptor)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _sweep(parent: str) -> None:
    """Remove the directories that no process has locked."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        with contextlib.suppress(OSError):
            descriptor = os.open(path, _OPEN_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _bytes_in(directory: str) -> int:
    """Return the size of all files in a directory."""
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:  # files come and go
        total = sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    return total


def _last_output(path: str) -> str:
    """Return the end of the command's output on one line, without tokens, which its URLs may have."""
    with open(path, "rb") as file:
        text = file.read(_MIN_FILE_LIMIT).decode(errors="replace")
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return token.redact(line, os.environ)[-_MAX_OUTPUT:]
