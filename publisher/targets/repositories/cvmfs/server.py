"""Running ``cvmfs_server``; nothing else in this program calls it.

The tool evaluates its arguments in shell lines, asks questions on its standard input, refuses to work if a process has its
working directory below ``/cvmfs``, and exits with status 1 for nearly every failure. So arguments are checked against an
allow-list, standard input is empty, the tool starts in ``/`` and in a session of its own, every command has a timeout, and known
exit statuses and messages become errors with a next step.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import CommandError, PublisherError, RepositoryError, SpaceError
from publisher.system import command
from publisher.targets.repositories.cvmfs.errors import LeaseBusyError, LeaseExpiredError, repository_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.system.command import CompletedCommand

PROGRAM = "cvmfs_server"
MARK = "OSPOOL_IMAGE_PUBLISHER"
"""Environment variable that marks a process as working for a transaction of ours: its value is the transaction's token."""

_ARGUMENT = re.compile(r"[A-Za-z0-9._:@+/=-]+", re.ASCII)
_ANY_STATUS = range(256)

# Runs the tool, even if we are killed meanwhile, and writes a record that identifies the transaction: the tool's exit status,
# and the identity of the flag file if the tool created it. The record is complete or missing, even on a full disk. Arguments:
# record, flag file, tool and its arguments.
_RECORDING_SCRIPT = """
record=$1 flag=$2; shift 2
"$@"; status=$?
{ echo "$status" && { LC_ALL=C stat -c '%i %.9Y' -- "$flag" || [ ! -e "$flag" ]; }; } >"$record.new" 2>/dev/null &&
    sync -- "$record.new" && mv -f -- "$record.new" "$record" && sync -- "${record%/*}"
exit "$status"
"""

_OPEN_FAILURES = {
    errno.ENOENT: ("the parent of the path to be leased is missing", "publish the parent first"),
    errno.EIO: (
        "the whitelist or the stratum 0 cannot be read",
        "check that the web server of the stratum 0 runs, and that `cvmfs_server list` shows no problem; then run again",
    ),
    errno.EEXIST: ("somebody else's transaction is open", "run again when it has ended; it was not touched"),
    errno.ENOTDIR: ("the parent of the path to be leased is not a directory", "look at what is there"),
    errno.EINVAL: (
        "the whitelist has expired, or the repository's layout is of another version of cvmfs_server",
        "`cvmfs_server resign {fqrn}`, or `cvmfs_server migrate {fqrn}`; then run again",
    ),
    3: ("cvmfs_server does not know this option", "`transaction -T` needs cvmfs_server 2.8 or newer: update it"),
}
_DEFAULT_HINT = (
    "look at `cvmfs_server list`: repair unhealthy mounts with `cvmfs_server mount {fqrn}`, or wait for another publish"
)

_VERSION = re.compile(r"Server Tool ([0-9]+)\.([0-9]+)")
_KEEPS_OWNERS = (2, 12)
"""The first version whose ingest knows ``-k``; older ones ignore it, and give all files to the repository's owner."""
_VERSION_TIMEOUT = 30.0
_BUSY = "target is busy"
_LEASE_OVER = "invalid lease"
_HINTS = (
    (
        _BUSY,
        "end the programs that read there (see `lsof /var/spool/cvmfs/{fqrn}/rdonly`) and run again",
    ),
    ("Open writable file descriptors", "end the programs that write there (see `lsof +f -- /cvmfs/{fqrn}`) and run again"),
    ("Current working directory", "leave /cvmfs/{fqrn} and run again"),
    ("Another publish process", "run again when it has ended"),
    (
        "is_publishing.lock",
        "see who holds it (`fuser -v /var/spool/cvmfs/{fqrn}/is_publishing.lock`) and run again when it has ended",
    ),
    ("cannot acquire lease", "start the gateway (CVMFS_UPSTREAM_STORAGE in server.conf has its address) and run again"),
    ("cannot drop lease", "start the gateway (CVMFS_UPSTREAM_STORAGE in server.conf has its address) and run again"),
    ("cannot read gateway key", "store the gateway's key as /etc/cvmfs/keys/{fqrn}.gw and run again"),
    ("cannot parse session token", "compare /etc/cvmfs/keys/{fqrn}.gw with the keys of repo.json on the gateway's host"),
    ("Repository unavailable", "start the web server of the stratum 0 and run again"),
    ("failed to download", "start the web server of the stratum 0 and run again"),
    ("whitelist", "sign the whitelist anew with `cvmfs_server resign {fqrn}` and run again"),
    (
        "Garbage collection failed",
        "set CVMFS_AUTO_GC=false in server.conf, and run `cvmfs_server gc -f {fqrn}` when nothing is published",
    ),
    (
        "limit",
        "CVMFS_ENFORCE_LIMITS refuses images that are too large: lower max_unpacked_size, or raise the limits in server.conf",
    ),
    ("Killed", "check the limits in server.conf if CVMFS_ENFORCE_LIMITS is set; otherwise memory ran out: run again"),
    ("Permission denied", "run as the repository's owner, or as root"),
    ("web server", "start the web server of the stratum 0 and run again"),
)
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|errno: (?:28|122)\b")


@dataclass(frozen=True)
class CvmfsTimeouts:
    """Seconds that commands may take.

    Publishing hashes and compresses all new files: 50 GB take about an hour.

    Attributes:
        transaction: for opening a transaction.
        lease: for waiting until another publisher host has given back the gateway's lease.
        publish: for publishing one.
        abort: for aborting one.
        report: between two log lines about a command that is still running.
    """

    transaction: float = 600.0
    lease: float = 600.0
    publish: float = 6 * 3600.0
    abort: float = 600.0
    report: float = 30.0


class CvmfsServer:
    """The commands of ``cvmfs_server`` for one repository.

    Args:
        fqrn: the fully qualified repository name.
        program: the name or path of the tool.
        timeouts: how long its commands may take.
        report: called as ``report(command, seconds, last_line)`` while a command is still running.
    """

    def __init__(
        self,
        fqrn: str,
        program: str = PROGRAM,
        timeouts: CvmfsTimeouts = CvmfsTimeouts(),
        report: Callable[[str, float, str], None] | None = None,
    ) -> None:
        self.fqrn = fqrn
        self._report = report
        self._program = program
        self._timeouts = timeouts

    def open(self, token: str, record: Path, flag: Path, template: tuple[str, str] | None = None) -> bool:
        """Open a transaction; the result is written to ``record`` even if this process is killed meanwhile.

        Args:
            token: identifies the transaction.
            record: the file for the tool's exit status and the identity of ``flag``.
            flag: the file that the tool creates for an open transaction.
            template: a published directory and the new path that it is cloned to; None without a clone.

        Returns:
            False if the template was refused; then no transaction is open.

        Raises:
            RepositoryError: no transaction was opened, or somebody else's is open.
            LeaseBusyError: another host has the gateway's lease.
            SpaceError: the disk is full.
        """
        cloning = [] if template is None else ["-T", "=".join(map(_checked_argument, template))]
        argv = [self._program, "transaction", *cloning, self.fqrn]
        wrapped = ["sh", "-c", _RECORDING_SCRIPT, "sh", str(record), str(flag), *map(_checked_argument, argv)]
        done = self._command("transaction", wrapped, self._timeouts.transaction, token)
        if done.status == 0:
            return True
        if template is not None and done.status == errno.EINVAL:
            return False
        if done.status == errno.EBUSY:
            raise LeaseBusyError(self.fqrn, _line_with("Path busy", done))
        if done.status not in _OPEN_FAILURES:
            raise self._failed("transaction", done)
        reason, hint = _OPEN_FAILURES[done.status]
        raise repository_error(self.fqrn, f"{reason}: {_last_line(done)}", hint)

    def publish(self, token: str) -> None:
        """Publish the open transaction.

        Raises:
            RepositoryError: the tool failed; the transaction is still open, and may be published or not.
            LeaseExpiredError: the gateway's lease was over.
            SpaceError: the disk is full.
        """
        done = self._run(["publish", "-f", self.fqrn], self._timeouts.publish, token)
        if done.status != 0:
            raise self._failed("publish", done)

    def keeps_owners(self) -> bool:
        """Return whether :meth:`ingest` can keep the owners of files. Raises RepositoryError if the tool cannot be started."""
        done = self._command("version", [self._program, "version"], _VERSION_TIMEOUT, "")
        match = _VERSION.search("\n".join(_outputs(done)))
        return match is not None and (int(match[1]), int(match[2])) >= _KEEPS_OWNERS

    def ingest(self, token: str, base: str, stream: int, on_start: Callable[[], None]) -> None:
        """Publish the members of a tar stream below a published directory, in a transaction of the tool's own.

        Args:
            token: identifies the transaction.
            base: the directory.
            stream: descriptor of a pipe. If it ends within a member, nothing is published.
            on_start: called once the tool has the descriptor.

        Raises:
            RepositoryError: the tool failed; it has aborted its transaction, if it could.
            SpaceError: the disk is full.
        """
        arguments = ["ingest", "-k", "-t", f"/dev/fd/{stream}", "-b", base, self.fqrn]
        argv = [self._program, *map(_checked_argument, arguments)]
        done = self._command("ingest", argv, self._timeouts.publish, token, stream=stream, on_start=lambda _kill: on_start())
        if done.status != 0:
            raise self._failed("ingest", done)

    def abort(self, token: str, *, last: bool = True) -> bool:
        """Discard the open transaction.

        Returns:
            False if somebody reads in the mount, so that it has to be tried again; never for the ``last`` attempt.

        Raises:
            RepositoryError: the transaction could not be discarded.
        """
        done = self._run(["abort", "-f", self.fqrn], self._timeouts.abort, token)
        if done.status == 0:
            return True
        if last or not any(_BUSY in output for output in _outputs(done)):
            raise self._failed("abort", done)
        return False

    def give_back_lease(self) -> None:
        """Give back a gateway's lease that no transaction is open for. Raises RepositoryError."""
        done = self._run(["abort", "-f", self.fqrn], self._timeouts.abort)
        if done.status not in (0, errno.EINVAL):  # EINVAL: as expected, no transaction is open
            raise self._failed("abort", done)

    def mount(self) -> None:
        """Mount the repository as it should be, at the newest revision; raise RepositoryError if that fails."""
        done = self._run(["mount", self.fqrn], self._timeouts.transaction)
        if done.status != 0:
            raise self._failed("mount", done)

    def _run(self, arguments: Sequence[str], timeout: float, token: str = "") -> CompletedCommand:
        return self._command(arguments[0], [self._program, *map(_checked_argument, arguments)], timeout, token)

    def _command(
        self,
        name: str,
        argv: Sequence[str],
        timeout: float,
        token: str,
        *,
        stream: int | None = None,
        on_start: Callable[[Callable[[], None]], None] | None = None,
    ) -> CompletedCommand:
        try:
            # Not killed with this process: after a publish that was cut off, only an abort repairs the repository.
            return command.run(
                argv,
                deadline=timeout,
                env={MARK: token},
                cwd=Path("/"),
                accept=_ANY_STATUS,
                guarded=False,
                watch=None if self._report is None else partial(self._report, name),
                watch_interval=self._timeouts.report,
                on_start=on_start,
                pass_fds=() if stream is None else (stream,),
            )
        except CommandError as error:
            reason = error.reason.partition(" ")[2]  # without the name of the shell that it may run in
            hint = "look at `cvmfs_server list` and the system's log, then run again"
            if error.status is None and "started" in error.reason:
                hint = "install the cvmfs-server package on the publisher host, or correct PATH"
            raise repository_error(self.fqrn, f"cvmfs_server {name} {reason}", hint) from error

    def _failed(self, name: str, done: CompletedCommand) -> PublisherError:
        """Return the error for a command that failed, with a hint that depends on its output."""
        output = "\n".join(_outputs(done))
        if _DISK_FULL.search(output):
            reason = f"repository {self.fqrn}: no space left: cvmfs_server {name} failed with status {done.status}"
            return SpaceError(reason, hint="free space where CVMFS_UPSTREAM_STORAGE of its server.conf is, or in its spool")
        if _LEASE_OVER in output:
            return LeaseExpiredError(self.fqrn, _line_with(_LEASE_OVER, done))
        hint = next((hint for words, hint in _HINTS if words in output), _DEFAULT_HINT)
        return repository_error(self.fqrn, f"cvmfs_server {name} failed with status {done.status}: {_last_line(done)}", hint)


def is_safe_argument(text: str) -> bool:
    """Return whether a text may be passed to the tool as an argument."""
    return _ARGUMENT.fullmatch(text) is not None


def _checked_argument(text: str) -> str:
    if not is_safe_argument(text):
        raise RepositoryError(f"{text!r} cannot be passed to cvmfs_server, which evaluates its arguments in a shell")
    return text


def _outputs(done: CompletedCommand) -> list[str]:
    """Return the tool's two outputs without the command line or stack trace that it prints after a failure."""
    streams = (done.stdout.decode("utf-8", "replace"), done.stderr)
    return [stream.partition("Executed Command")[0].partition("Stacktrace:")[0] for stream in streams]


def _last_line(done: CompletedCommand) -> str:
    return _lines(done)[-1]


def _line_with(words: str, done: CompletedCommand) -> str:
    """Return the first line of the tool's output that has some words; the last one if none has."""
    return next((line for line in _lines(done) if words in line), _last_line(done))


def _lines(done: CompletedCommand) -> list[str]:
    lines = [line.strip()[:500] for stream in _outputs(done) for line in stream.splitlines() if line.strip()]
    return lines or ["it printed nothing"]
