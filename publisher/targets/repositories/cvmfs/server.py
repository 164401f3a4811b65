"""The one door to ``cvmfs_server``.

The tool puts its arguments into shell lines and evaluates them, asks questions on its standard input, sees a working directory
below ``/cvmfs`` as somebody's work, and says ``1`` for nearly everything. So arguments have an allow-list, there is nothing to
read, it starts in ``/`` and in a session of its own, every command has a deadline, and exit codes and messages that were
measured become errors that say what to do.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.errors import CommandError, PublisherError, RepositoryError, SpaceError
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.system.command import CompletedCommand

PROGRAM = "cvmfs_server"
MARK = "OSPOOL_IMAGE_PUBLISHER"
"""Environment variable by which a process is known to work for a transaction of ours: its value is the transaction's token."""

_WORD = re.compile(r"[A-Za-z0-9._:@+/=-]+", re.ASCII)
_ANY = range(256)

# Ends when the tool has ended, also when we were killed meanwhile, and leaves behind whose transaction is open: the tool's
# status, and the identity of the flag file that it made, if it did. Whole or not at all, whatever the disk's state. Arguments:
# record, flag file, tool and its arguments.
_RECORDED = """
record=$1 flag=$2; shift 2
"$@"; status=$?
{ echo "$status" && { LC_ALL=C stat -c '%i %.9Y' -- "$flag" || [ ! -e "$flag" ]; }; } >"$record.new" 2>/dev/null &&
    sync -- "$record.new" && mv -f -- "$record.new" "$record"
exit "$status"
"""

_OPENING = {
    errno.ENOENT: ("the parent of the path to be leased is missing", "publish the parent first"),
    errno.EIO: (
        "the whitelist or the stratum 0 cannot be read",
        "see that the web server of the stratum 0 runs, and that `cvmfs_server list` has no complaint; then run again",
    ),
    errno.EBUSY: ("the gateway has given the lease to somebody else", "run again when it has ended; it was not touched"),
    errno.EEXIST: ("somebody else's transaction is open", "run again when it has ended; it was not touched"),
    errno.ENOTDIR: ("the parent of the path to be leased is no directory", "see what stands there"),
    errno.EINVAL: (
        "the whitelist has expired, or the repository's layout is of another version of cvmfs_server",
        "`cvmfs_server resign {fqrn}`, or `cvmfs_server migrate {fqrn}`; then run again",
    ),
    3: ("cvmfs_server does not know this option", "a version of cvmfs_server with `transaction -T` is needed: 2.8 or newer"),
}
_UNSAID = (
    "see `cvmfs_server list`: unhealthy mounts are mended by `cvmfs_server mount {fqrn}`, and another publish is to be waited for"
)

_BUSY = "target is busy"
_SAID = (
    (_BUSY, "end what reads below /var/spool/cvmfs/{fqrn}/rdonly (`lsof /var/spool/cvmfs/{fqrn}/rdonly` shows it) and run again"),
    ("Open writable file descriptors", "end what writes there (`lsof +f -- /cvmfs/{fqrn}` shows it) and run again"),
    ("Current working directory", "leave /cvmfs/{fqrn} and run again"),
    ("Another publish process", "run again when it has ended"),
    ("is_publishing.lock", "another publish of this repository is under way: run again when it has ended"),
    ("Repository unavailable", "start the web server of the stratum 0 and run again"),
    ("failed to download", "start the web server of the stratum 0 and run again"),
    ("whitelist", "sign the whitelist anew with `cvmfs_server resign {fqrn}` and run again"),
    (
        "Garbage collection failed",
        "set CVMFS_AUTO_GC=false in server.conf, run `cvmfs_server gc -f {fqrn}` apart from publishing",
    ),
    ("limit", "CVMFS_ENFORCE_LIMITS refuses what is too large: lower max_unpacked_size, or raise the limits in server.conf"),
    ("Killed", "with CVMFS_ENFORCE_LIMITS see its limits in server.conf; otherwise memory was short: run again"),
    ("Permission denied", "run as the repository's owner, or as root"),
    ("web server", "start the web server of the stratum 0 and run again"),
)
_NO_ROOM = "No space left on device"


@dataclass(frozen=True)
class CvmfsTimeouts:
    """Seconds that commands may take. Publishing hashes and compresses all that is new: 50 GB take about an hour."""

    look: float = 120.0
    transaction: float = 600.0
    publish: float = 6 * 3600.0
    abort: float = 600.0


class CvmfsServer:
    """``cvmfs_server`` for one repository.

    Args:
        fqrn: the repository's name.
        program: the tool, by name or path.
        deadlines: how long its commands may take.
    """

    def __init__(self, fqrn: str, program: str = PROGRAM, deadlines: CvmfsTimeouts = CvmfsTimeouts()) -> None:
        self.fqrn = fqrn
        self._program = program
        self._deadlines = deadlines

    def listed(self) -> str | None:
        """What ``cvmfs_server list`` says of the repository, from the first parenthesis on; None where there is no such one.

        Raises:
            RepositoryError: the tool is missing, failed, or did not end.
        """
        done = self._run(["list"], self._deadlines.look)
        if done.status != 0:
            raise self._failed("list", done)
        for line in done.stdout.decode("utf-8", "replace").splitlines():
            name, _, said = line.partition(" ")
            if name == self.fqrn:
                return said
        return None

    def open(self, token: str, record: Path, flag: Path, template: tuple[str, str] | None = None) -> bool:
        """Open a transaction; how it ended is left in ``record`` also when this process is killed meanwhile.

        Args:
            token: of the transaction.
            record: the file for the tool's exit status and the identity of ``flag``.
            flag: the file by which the tool knows that a transaction is open.
            template: published directory, and path not yet there that it is cloned to.

        Returns:
            False where the template was refused: no transaction is open then.

        Raises:
            RepositoryError: none is open, or somebody else's.
        """
        cloning = [] if template is None else ["-T", "=".join(map(_word, template))]
        argv = [self._program, "transaction", *cloning, self.fqrn]
        wrapped = ["sh", "-c", _RECORDED, "sh", str(record), str(flag), *map(_word, argv)]
        done = self._command("transaction", wrapped, self._deadlines.transaction, token)
        if done.status == 0:
            return True
        if template is not None and done.status == errno.EINVAL:
            return False
        reason, hint = _OPENING.get(done.status, ("cvmfs_server transaction failed", _UNSAID))
        raise self._error(f"{reason}: {_last_words(done)}", hint)

    def publish(self, token: str) -> None:
        """Publish the open transaction.

        Raises:
            RepositoryError: it was not published, or not quite; the transaction is still open.
            SpaceError: no room for it.
        """
        done = self._run(["publish", "-f", self.fqrn], self._deadlines.publish, token)
        if done.status != 0:
            raise self._failed("publish", done)

    def abort(self, token: str, *, last: bool = True) -> bool:
        """Discard the open transaction.

        Returns:
            False where it could not because somebody reads in the mount, and this is not the ``last`` try.

        Raises:
            RepositoryError: it could not be discarded.
        """
        done = self._run(["abort", "-f", self.fqrn], self._deadlines.abort, token)
        if done.status == 0:
            return True
        if last or not any(_BUSY in said for said in _streams(done)):
            raise self._failed("abort", done)
        return False

    def _run(self, arguments: Sequence[str], deadline: float, token: str = "") -> CompletedCommand:
        return self._command(arguments[0], [self._program, *map(_word, arguments)], deadline, token)

    def _command(self, name: str, argv: Sequence[str], deadline: float, token: str) -> CompletedCommand:
        try:
            # Not ended with us: a publish that is cut off leaves a repository that only an abort mends.
            return command.run(argv, deadline=deadline, env={MARK: token}, cwd=Path("/"), accept=_ANY, guarded=False)
        except CommandError as error:
            how = error.reason.partition(" ")[2]  # without the name of the shell that it may run in
            hint = "see `cvmfs_server list` and the log of the system, then run again"
            if error.status is None and "started" in error.reason:
                hint = "install the cvmfs-server package on the publisher host, or correct PATH"
            raise self._error(f"cvmfs_server {name} {how}", hint) from error

    def _failed(self, name: str, done: CompletedCommand) -> PublisherError:
        """The error for a command that said why it failed, if it did."""
        said = "\n".join(_streams(done))
        if _NO_ROOM in said:
            return SpaceError(f"cvmfs_server {name}: {_NO_ROOM.lower()}", hint="make room in /srv/cvmfs and /var/spool/cvmfs")
        hint = next((hint for words, hint in _SAID if words in said), _UNSAID)
        return self._error(f"cvmfs_server {name} failed with status {done.status}: {_last_words(done)}", hint)

    def _error(self, reason: str, hint: str) -> RepositoryError:
        return RepositoryError(f"repository {self.fqrn}: {reason}", hint=hint.format(fqrn=self.fqrn))


def sound(text: str) -> bool:
    """Whether the tool may be given a text as an argument."""
    return _WORD.fullmatch(text) is not None


def _word(text: str) -> str:
    if not sound(text):
        raise RepositoryError(f"{text!r} cannot be given to cvmfs_server, which takes arguments for shell lines")
    return text


def _streams(done: CompletedCommand) -> list[str]:
    """What the tool said, without what says nothing: the command line, or the stack, that it shows after a failure."""
    streams = (done.stdout.decode("utf-8", "replace"), done.stderr)
    return [stream.partition("Executed Command")[0].partition("Stacktrace:")[0] for stream in streams]


def _last_words(done: CompletedCommand) -> str:
    lines = [line.strip() for stream in _streams(done) for line in stream.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "it said nothing"
