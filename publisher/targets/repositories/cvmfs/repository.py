"""The production form: a CVMFS repository on its publisher host, changed by ``cvmfs_server``.

What was measured of the tool shapes it. Its own locks have holes, so that a lock of ours lies around everything. It ends with 0
for what it did not do, so that a publish counts by the revision at the stratum 0. Its state after a failure is an open
transaction, which is aborted where a claim proves it ours, and never otherwise. Readers look at the mount of what is published
(``/var/spool/cvmfs/FQRN/rdonly``): the one at ``/cvmfs/FQRN`` shows an open transaction half done.

In the spool directory, beside the tool's own files, ``image-publisher/`` has ``lock`` (flock(2), with the holder's pid), and
while a transaction of ours is open ``claim`` and ``opened`` (``claim.py``); ``gate.py`` tells of ``gate`` and ``readers``.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, TypeVar

from publisher.errors import PublisherError, RepositoryError
from publisher.system import durable
from publisher.targets.repositories import lock
from publisher.targets.repositories.base import Repository
from publisher.targets.repositories.cvmfs.claim import TransactionClaim, recorded
from publisher.targets.repositories.cvmfs.host import CvmfsHost, HostPaths
from publisher.targets.repositories.cvmfs.mount_gate import MountGate
from publisher.targets.repositories.cvmfs.preflight import Preflight
from publisher.targets.repositories.cvmfs.server import CvmfsServer, CvmfsTimeouts, sound
from publisher.targets.repositories.cvmfs.transaction import CvmfsTransaction
from publisher.targets.repositories.published_tree import PublishedTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from publisher.targets.repositories.base import Transaction


T = TypeVar("T")
_POLL = 0.5  # seconds between two tries to discard a transaction
_SHORT = 2.0  # seconds that a read of one file waits while a publish is under way; it is over before the mount is missed
_ROOTS, _DEADLINES = HostPaths(), CvmfsTimeouts()


class CvmfsRepository(Repository):
    """The repository ``fqrn`` of this host.

    Args:
        fqrn: the fully qualified repository name.
        name: its name in the manifest, ``fqrn`` unless given.
        program: the tool, by name or path.
        roots: where the host has its repositories.
        deadlines: how long the tool's commands may take.
        patience: seconds that are waited for what a killed run left at work, and for a mount while a transaction ends.
        parents: directories that are made with the first tree, so that clones have where to go.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        fqrn: str,
        name: str | None = None,
        *,
        program: str = "cvmfs_server",
        roots: HostPaths = _ROOTS,
        deadlines: CvmfsTimeouts = _DEADLINES,
        patience: float = 60.0,
        parents: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not sound(fqrn) or "/" in fqrn:
            raise RepositoryError(f"{fqrn!r} is no name of a CVMFS repository")
        self.fqrn = fqrn
        self.name = name or fqrn
        self._server = CvmfsServer(fqrn, program, deadlines)
        self._host = CvmfsHost(fqrn, roots)
        self.root = self._host.published
        self._tree = PublishedTree(self.root)
        self._deadlines = deadlines
        self._patience = patience
        self._parents = parents
        self._clock = clock
        self._condition = Preflight(fqrn, self._server, self._host, patience, clock)
        self._noticed: list[str] = []
        self._area = self._host.spool / "image-publisher"
        self._gate = MountGate(self._area)
        self._claim = self._area / "claim"
        self._record = self._area / "opened"

    @property
    def clones(self) -> bool:  # type: ignore[override]  # it depends on the repository's settings
        """See :attr:`Repository.clones`. No file index knows extended attributes: where they are published, all is unpacked."""
        return self._condition.settings().get("CVMFS_INCLUDE_XATTRS") != "true"

    def noticed(self) -> list[str]:
        """See :meth:`Repository.noticed`."""
        noticed, self._noticed = self._noticed, []
        return noticed

    def recover(self) -> list[str]:
        """See :meth:`Repository.recover`. A transaction that a claim does not prove ours is left alone.

        Raises:
            RepositoryError: the repository is in a state that somebody has to mend first; the hint says how.
        """
        try:
            with self._lock():
                done = self._settle()
                return done + self._condition.require_fit()
        except lock.RepositoryLockedError:
            return []

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See :meth:`Repository.transaction`. It is opened at the server by the first change.

        Raises:
            RepositoryError: the repository is in a state that somebody has to mend first, or publishing failed.
            RemovalError: nothing is published.
            SpaceError: no room.
        """
        with self._lock():
            self._settle()
            self._condition.require_fit()
            self._condition.require_closed()
            claims: list[TransactionClaim] = []

            def begin(template: tuple[str, str] | None) -> bool:
                claim = self._open(template)
                claims.extend([] if claim is None else [claim])
                return claim is not None

            transaction = CvmfsTransaction(self._host.mount, begin, self._parents)
            try:
                yield transaction
                changed = transaction.put_in_place()
                if claims and changed:
                    self._publish(claims[0])
            finally:
                with contextlib.suppress(PublisherError):  # then the next run does it: the claim is still there
                    self._give_up()

    def read(self, path: str) -> bytes | None:
        """See :meth:`Repository.read`."""
        return self._look(lambda: None if self._unpublished(path) else self._tree.read(path))

    def exists(self, path: str) -> bool:
        """See :meth:`Repository.exists`."""
        return self._look(lambda: not self._unpublished(path) and self._tree.exists(path))

    def links(self) -> dict[str, str]:
        """See :meth:`Repository.links`."""
        return self._look(self._tree.links)

    def look(self, read: Callable[[], T]) -> T:
        """See :meth:`Repository.look`. A publish waits for it, and it for a publish."""
        return self._look(read, self._deadlines.publish)

    def _look(self, read: Callable[[], T], patience: float = _SHORT) -> T:
        with self._gate.passed(patience):
            return self._condition.look(read)

    # --- a transaction of ours

    def _open(self, template: tuple[str, str] | None) -> TransactionClaim | None:
        """Open a transaction at the server, claimed; None where the template was refused."""
        self._condition.require_closed()
        claim = TransactionClaim(  # only now: of a publish that was still under way before, the revision would be taken for ours
            self.fqrn,
            durable.token(),
            os.getpid(),
            int(self._clock()),
            self._condition.stratum().revision(),
            None if template is None else template[1],
        )
        with self._failures("note down a transaction"):
            self._record.unlink(missing_ok=True)
            claim.save(self._claim)
        try:
            opened = self._server.open(claim.token, self._record, self._host.flag, template)
        except PublisherError:
            self._forget_unless_open()
            raise
        if not opened:
            self._forget_unless_open()
            return None
        return claim

    def _publish(self, claim: TransactionClaim) -> None:
        """Publish, and believe it when the stratum 0 shows a newer revision: whatever the tool's exit status says."""
        said: PublisherError | None = None
        try:
            with self._closed():
                self._server.publish(claim.token)
        except PublisherError as error:
            said = error
        try:
            shown = self._condition.stratum().revision()
        except RepositoryError as error:
            raise said or error from None
        if shown > claim.revision:
            if said is not None:
                self._noticed.append(f"revision {shown} is published all the same: {said}")
            return
        raise said or RepositoryError(
            f"repository {self.fqrn}: cvmfs_server says that it has published, but the stratum 0 still shows revision {shown}",
            hint="see `cvmfs_server list` and whether CVMFS_STRATUM0 is where CVMFS_UPSTREAM_STORAGE writes to; then run again",
        )

    def _give_up(self) -> None:
        """End what may be left of a transaction of ours: after a publish nothing is."""
        with self._failures("end a transaction"):
            claim = TransactionClaim.load(self._claim)
            if claim is None:
                return
            if self._is_ours():
                self._abort(claim)
            self._forget_unless_open()

    def _abort(self, claim: TransactionClaim) -> None:
        """Discard it; where somebody reads in the mount, again, until the patience is over."""
        deadline = time.monotonic() + self._patience
        with self._closed():
            while not self._server.abort(claim.token, last=time.monotonic() >= deadline):
                time.sleep(_POLL)

    def _closed(self) -> AbstractContextManager[None]:
        return self._gate.closed(self._deadlines.transaction)

    def _settle(self) -> list[str]:
        """End what a killed run left open, where it is proven ours. The lock is held."""
        with self._failures("recover"):
            claim = TransactionClaim.load(self._claim)
            if claim is None:
                self._sweep()
                return []
            self._host.wait_for_stragglers(claim.token, self._patience)
            status, _ = recorded(self._record)
            if self._is_ours():
                published = self._condition.stratum().revision() > claim.revision
                self._abort(claim)
                self._forget_unless_open()
                how = "closed an interrupted transaction, which was published" if published else "discarded an interrupted one"
                return [f"{how} (opened by process {claim.pid})"]
            if status is None and self._host.identity() is not None:
                raise RepositoryError(
                    f"repository {self.fqrn}: process {claim.pid} was about to open a transaction and has left no record of it "
                    "(ended there, or a full disk), and one is open: whose it is cannot be told",
                    hint=f"if nobody else is at work, `cvmfs_server abort -f {self.fqrn}`; remove {self._claim}; then run again",
                )
            self._forget_unless_open()
            return []

    def _is_ours(self) -> bool:
        status, identity = recorded(self._record)
        return status == 0 and identity is not None and identity == self._host.identity()

    def _forget_unless_open(self) -> None:
        """Remove the claim, unless what it claims is open, or may be."""
        with self._failures("end a transaction"):
            status, _ = recorded(self._record)
            if self._host.identity() is not None and (status is None or self._is_ours()):
                return
            self._claim.unlink(missing_ok=True)
            self._sweep()

    def _sweep(self) -> None:
        """Remove what nothing claims, half written files of killed runs among it."""
        for path in self._area.iterdir():
            if path.name not in ("lock", *MountGate.NAMES):
                path.unlink()

    def _unpublished(self, path: str) -> bool:
        """Whether a path is in a clone of an open transaction: the tool shows it from the start."""
        with self._failures(f"look at {path!r}"):
            claim = TransactionClaim.load(self._claim)
        return claim is not None and claim.clone is not None and f"{path}/".startswith(f"{claim.clone}/")

    def _failures(self, doing: str) -> AbstractContextManager[None]:
        return durable.failures(
            RepositoryError, f"repository {self.fqrn}: cannot {doing}", "run as the repository's owner, or as root"
        )

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold our lock around everything: the tool's own is not atomic, and lets two transactions open at once."""
        self._condition.require_there()
        with contextlib.ExitStack() as stack:
            with self._failures("take the lock"):
                self._area.mkdir(exist_ok=True)
                self._gate.make()
                stack.enter_context(lock.held(self._area / "lock", self.fqrn))
            yield
