"""The life of our transactions at the CVMFS server: opened under a claim, then published or aborted; recovered after a kill.

The tool's exit status is not relied on: it exits with 0 for what it did not do, so that a publish counts by the revision at the
stratum 0. After a failure the transaction stays open; it is aborted if the claim proves that it is ours, and never otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from publisher.errors import PublisherError, RepositoryError, SpaceError
from publisher.system import durable
from publisher.system.tar_stream import TarStream
from publisher.targets.repositories.cvmfs.claim import TransactionClaim
from publisher.targets.repositories.cvmfs.errors import SPOOL_FULL_HINT, failures, repository_error
from publisher.targets.repositories.cvmfs.tool_pipe import ToolEndedError, ToolPipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from publisher.targets.repositories.cvmfs.claim import ClaimFile
    from publisher.targets.repositories.cvmfs.host import CvmfsHost
    from publisher.targets.repositories.cvmfs.lease import Lease
    from publisher.targets.repositories.cvmfs.mounts.mount_gate import MountGate
    from publisher.targets.repositories.cvmfs.obstacles import Obstacles
    from publisher.targets.repositories.cvmfs.preflight import Preflight
    from publisher.targets.repositories.cvmfs.server import CvmfsServer, CvmfsTimeouts
    from publisher.targets.repositories.cvmfs.storage import CvmfsStorage

_log = logging.getLogger(__name__)
_POLL = 0.5  # seconds between two attempts to abort a transaction


class OwnTransactions:
    """Our transactions of one repository; the caller holds our lock of that repository.

    Args:
        server: the tool.
        host: the repository's files on this host.
        preflight: the repository's settings and stratum 0.
        claims: the file of the claim.
        gate: keeps our readers out while the tool replaces the published mount.
        storage: the repository's disks.
        obstacles: what keeps the tool from working.
        lease: the lease of a repository behind a gateway.
        timeouts: how long the tool's commands may take.
        timeout: seconds to wait for programs that a killed run has left, and for readers before an abort.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        server: CvmfsServer,
        host: CvmfsHost,
        preflight: Preflight,
        claims: ClaimFile,
        gate: MountGate,
        *,
        storage: CvmfsStorage,
        obstacles: Obstacles,
        lease: Lease,
        timeouts: CvmfsTimeouts,
        timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._fqrn = server.fqrn
        self._server = server
        self._host = host
        self._preflight = preflight
        self._claims = claims
        self._storage = storage
        self._obstacles = obstacles
        self._lease = lease
        self._gate = gate
        self._timeouts = timeouts
        self._timeout = timeout
        self._clock = clock

    def open(self, template: tuple[str, str] | None) -> TransactionClaim | None:
        """Open a transaction at the server; return its claim, or None if the template was refused.

        Args:
            template: a published directory and the new path that it is cloned to; None without a clone. It is refused behind a
                gateway, which publishes a clone on its own.

        Raises:
            RepositoryError: no transaction was opened.
            LeaseBusyError: another publisher host has the gateway's lease.
            SpaceError: a disk is full.
        """
        if self._preflight.gateway() is None:
            return self._open(template)
        return None if template is not None else self._lease.wait(self._open_with_lease)

    def _open_with_lease(self) -> TransactionClaim | None:
        """Open a transaction at the newest revision; return None if another host has published in between.

        The tool mounts the newest revision before it gets the lease, and commits the changes to whatever is newest then.
        """
        with self._closed_gate():
            claim = self._open(None)
        if claim is not None and self._preflight.stratum().revision() == claim.revision:
            return claim
        self.abort_if_open()
        return None

    def _claim(self, template: tuple[str, str] | None) -> TransactionClaim:
        """Write and return the claim of a transaction that is about to be opened."""
        self._preflight.require_no_transaction()
        claim = TransactionClaim(  # made only now: a publish still in progress before would raise the revision, as ours does
            repository=self._fqrn,
            token=durable.token(),
            pid=os.getpid(),
            time=int(self._clock()),
            revision=self._preflight.stratum().revision(),
            clone=None if template is None else template[1],
            boot=self._host.boot(),
        )
        with self._failures("write the claim of a transaction"):
            self._claims.save(claim)
        return claim

    def _open(self, template: tuple[str, str] | None) -> TransactionClaim | None:
        claim = self._claim(template)
        try:
            opened = self._server.open(claim.token, self._claims.record, self._host.flag, template)
        except PublisherError as error:
            self._release()
            raise self._explain(error) from error
        if not opened:
            self._release()
            return None
        with self._failures("look at the record of a transaction"):
            if not self._claims.is_ours():  # a kill would leave a transaction of which nobody knows whose it is
                self._abort(claim)
                self._release()
                raise SpaceError(
                    f"repository {self._fqrn}: there is no space for the record of a transaction", hint=SPOOL_FULL_HINT
                )
        _log.info("repository %s: opened a transaction at revision %d", self._fqrn, claim.revision)
        return claim

    def publish(self, claim: TransactionClaim) -> str | None:
        """Publish the open transaction; it is published if the stratum 0 shows a newer revision, whatever the tool reports.

        Behind a gateway the newer revision may be another host's, if the tool fails: then the next run finds out whose it is.

        Returns:
            A warning if the transaction is published although the tool failed; None otherwise.

        Raises:
            RepositoryError, SpaceError: the transaction is not published.
        """
        failure: PublisherError | None = None
        try:
            with self._closed_gate():
                self._server.publish(claim.token)
        except PublisherError as error:
            failure = self._explain(error)
        return self._confirm(claim, failure)

    def can_ingest(self) -> bool:
        """Return whether the tool can publish a tar stream as this program needs it. Raises RepositoryError."""
        return self._server.keeps_owners()

    @contextlib.contextmanager
    def ingest(self, base: str) -> Iterator[TarStream]:
        """Publish a tar stream, in a transaction of the tool's own that the block keeps open; the stream ends after the block.

        Args:
            base: a published directory; the members' names are relative to it.

        Raises:
            RepositoryError, SpaceError: nothing is published.
        """
        claim = self._claim(None)
        given_up = 0.0
        try:
            with ThreadPoolExecutor(1) as beside:
                pipe = ToolPipe(lambda: tool.done())  # noqa: PLW0108 - the tool is not started yet
                tool = beside.submit(self._ingest, claim, base, pipe)
                try:
                    stream = TarStream(self._proving(pipe))
                    yield stream
                    with self._closed_gate():
                        stream.end()
                        pipe.close()
                        failure = _failure(tool)
                except ToolEndedError:
                    failure = _failure(tool)
                finally:
                    given_up = self._clock()
                    pipe.close()
            warning = self._confirm(claim, None if failure is None else self._explain(failure))
        except BaseException:
            self._storage.sweep(claim.time, given_up)  # the tool has aborted its transaction, and leaves the chunks
            raise
        if warning is not None:
            _log.warning("repository %s: %s", self._fqrn, warning)

    def _ingest(self, claim: TransactionClaim, base: str, pipe: ToolPipe) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(pipe.close_read_end)
            self._server.ingest(claim.token, base, pipe.read_end, stack.close)

    def _proving(self, pipe: ToolPipe) -> Callable[[bytes | memoryview], object]:
        """Return a function that writes to a pipe; as soon as the tool reads, the open transaction is proven to be ours."""
        is_proven = False

        def write(data: bytes | memoryview) -> None:
            nonlocal is_proven
            pipe.write(data)
            if not is_proven:
                pipe.wait_until_read()
                is_proven = True
                with self._failures("write the record of a transaction"):
                    self._claims.record_opened()

        return write

    def _confirm(self, claim: TransactionClaim, failure: PublisherError | None) -> str | None:
        """Return as :meth:`publish` does, by the revision that the stratum 0 shows after a transaction."""
        try:
            revision = self._preflight.stratum().revision()
        except RepositoryError as error:
            raise failure or error from None
        if revision > claim.revision and (failure is None or self._preflight.gateway() is None):
            _log.info("repository %s: published revision %d", self._fqrn, revision)
            if self._preflight.gateway() is not None:  # the tool sometimes mounts the revision before it again
                with contextlib.suppress(RepositoryError):  # the manifest's reader finds out, too
                    self.follow()
            return None if failure is None else f"revision {revision} is published all the same: {failure}"
        raise failure or repository_error(
            self._fqrn,
            f"cvmfs_server reports that it has published, but the stratum 0 still shows revision {revision}",
            "check `cvmfs_server list`, and that CVMFS_STRATUM0 is where CVMFS_UPSTREAM_STORAGE writes to; then run again",
        )

    def abort_if_open(self) -> None:
        """Abort what is left of a transaction of ours; after a publish nothing is. Raises RepositoryError."""
        with self._failures("end a transaction"):
            claim = self._claims.load()
            if claim is None:
                return
            if self._claims.is_ours():
                self._abort(claim)
            self._claims.release()

    def recover(self) -> list[str]:
        """End a transaction that a killed run left open, if it is proven to be ours; return a line for each action.

        Raises:
            RepositoryError: a transaction is open, and it is unknown whether it is ours.
        """
        with self._failures("recover"):
            claim = self._claims.load()
            if claim is None:
                self._claims.sweep()
                self._lease.give_back()
                return []
            self._host.wait_for_stragglers(claim.token, self._timeout)
            if self._claims.is_ours():
                action = self._describe_recovery(claim)
                self._abort(claim)
                self._claims.release()
                _log.info("repository %s: recovery: %s (opened by process %d)", self._fqrn, action, claim.pid)
                return [f"{action} (opened by process {claim.pid})"]
            if self._claims.is_undecided():
                raise RepositoryError(
                    f"repository {self._fqrn}: process {claim.pid} was killed while it opened a transaction, together with "
                    "cvmfs_server, and a transaction is open in which nothing was written: it is unknown whether it is ours",
                    hint=f"if nobody else is at work, `cvmfs_server abort -f {self._fqrn}`; then run again",
                )
            self._claims.release()
            self._lease.give_back()
            return []

    def _describe_recovery(self, claim: TransactionClaim) -> str:
        if self._preflight.gateway() is not None:  # a newer revision may be another host's
            return "closed an interrupted transaction"
        if self._preflight.stratum().revision() > claim.revision:
            return "closed an interrupted transaction, which was published"
        return "discarded an interrupted one"

    def follow(self) -> None:
        """Mount the newest revision, which another host may have published through the gateway. Raises RepositoryError."""
        if not self._host.has_transaction():
            with self._closed_gate():
                self._server.mount()

    def _abort(self, claim: TransactionClaim) -> None:
        """Abort the transaction; try again, until the timeout, while somebody reads in the mount."""
        next_report = time.monotonic()
        deadline = next_report + self._timeout
        given_up = self._clock()
        with self._closed_gate():
            try:
                while not self._server.abort(claim.token, last=time.monotonic() >= deadline):
                    if time.monotonic() >= next_report:
                        self._obstacles.report("abort", time.monotonic() - deadline + self._timeout, "target is busy")
                        next_report += self._timeouts.report
                    time.sleep(_POLL)
            except PublisherError as error:
                raise self._explain(error) from error
        self._storage.sweep(claim.time, given_up)
        _log.info("repository %s: aborted the transaction that process %d had opened", self._fqrn, claim.pid)

    def _explain(self, error: PublisherError) -> PublisherError:
        return self._storage.explain(self._obstacles.explain(error))

    def _release(self) -> None:
        with self._failures("end a transaction"):
            self._claims.release()

    def _closed_gate(self) -> AbstractContextManager[None]:
        return self._gate.close(self._timeouts.transaction)

    def _failures(self, action: str) -> AbstractContextManager[None]:
        return failures(self._fqrn, action)


def _failure(tool: Future[None]) -> PublisherError | None:
    """Wait for the tool's end, and return how it failed."""
    try:
        tool.result()
    except PublisherError as error:
        return error
    return None
