"""A CVMFS repository on its publisher host, changed by ``cvmfs_server``: the production form of a repository.

The tool's own locks are not atomic, so a lock of ours is held around everything. Readers look at the mount of the published
content (``/var/spool/cvmfs/FQRN/rdonly``), because the mount at ``/cvmfs/FQRN`` shows the changes of an open transaction.

In the spool directory, beside the tool's own files, ``image-publisher/`` contains ``lock`` and ``run`` (flock(2), with the
holder's process id; of a transaction, and of a whole run), the files of the mount gate (``gate`` and ``readers``, see
``mount_gate.py``), ``boot`` (see ``mount_repair.py``), ``ingested`` (see ``ingested_tree.py``) and, while a transaction of ours
is open, ``claim`` and ``opened`` (see ``claim.py``).
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, TypeVar

from publisher.errors import PublisherError, RepositoryError, SpaceError
from publisher.system.tar_stream import header
from publisher.targets.repositories.base import Repository
from publisher.targets.repositories.cvmfs.claim import ClaimFile, TransactionClaim
from publisher.targets.repositories.cvmfs.errors import failures
from publisher.targets.repositories.cvmfs.host import CvmfsHost, HostPaths
from publisher.targets.repositories.cvmfs.ingested_tree import IngestedTree, incomplete
from publisher.targets.repositories.cvmfs.lease import Lease
from publisher.targets.repositories.cvmfs.mounts.mount_gate import MountGate
from publisher.targets.repositories.cvmfs.mounts.mount_repair import MountRepair
from publisher.targets.repositories.cvmfs.mounts.published_mount import PublishedMount
from publisher.targets.repositories.cvmfs.obstacles import Obstacles
from publisher.targets.repositories.cvmfs.own_transaction import OwnTransactions
from publisher.targets.repositories.cvmfs.preflight import Preflight
from publisher.targets.repositories.cvmfs.server import PROGRAM, CvmfsServer, CvmfsTimeouts, is_safe_argument
from publisher.targets.repositories.cvmfs.storage import CvmfsStorage
from publisher.targets.repositories.cvmfs.transaction import CvmfsTransaction
from publisher.targets.repositories.lock import RepositoryLockedError, hold_lock, hold_run
from publisher.targets.repositories.published_tree import PublishedTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from publisher.system.tar_stream import TarStream
    from publisher.targets.repositories.base import Transaction

T = TypeVar("T")
_log = logging.getLogger(__name__)
_GATE_TIMEOUT = 2.0  # seconds that a read of one file waits at the mount gate; then it reads all the same
_HOST_PATHS, _TIMEOUTS = HostPaths(), CvmfsTimeouts()


class CvmfsRepository(Repository):
    """The repository ``fqrn`` of this host.

    Args:
        fqrn: the fully qualified repository name.
        name: the repository's name in the manifest, ``fqrn`` if None.
        program: the name or path of the tool.
        host_paths: where the host has its repositories.
        timeouts: how long the tool's commands may take.
        timeout: seconds to wait for programs that a killed run has left, and for a mount while a transaction ends.
        parents: directories that are created with the first tree, so that later transactions can clone into them.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        fqrn: str,
        name: str | None = None,
        *,
        program: str = PROGRAM,
        host_paths: HostPaths = _HOST_PATHS,
        timeouts: CvmfsTimeouts = _TIMEOUTS,
        timeout: float = 60.0,
        parents: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not is_safe_argument(fqrn) or "/" in fqrn:
            raise RepositoryError(f"{fqrn!r} is not a valid name of a CVMFS repository")
        self.fqrn = fqrn
        self.name = name or fqrn
        self._host = CvmfsHost(fqrn, host_paths)
        self.root = self._host.published
        self._tree = PublishedTree(self.root)
        self._timeouts = timeouts
        self._clock = clock
        self._parents = parents
        self._area = self._host.spool / "image-publisher"
        self._gate = MountGate(self._area)
        self._claims = ClaimFile(self._area, self._host)
        self._ingested = IngestedTree(self._area, fqrn)
        self._mount = PublishedMount(fqrn, self._host, timeout)
        obstacles = Obstacles(fqrn, self._host)
        server = CvmfsServer(fqrn, program, timeouts, obstacles.report)
        repair = MountRepair(self._area, self._host, server)
        self._preflight = Preflight(fqrn, self._host, self._mount, repair=repair, obstacles=obstacles, clock=clock)
        self._own = OwnTransactions(
            server,
            self._host,
            self._preflight,
            self._claims,
            self._gate,
            storage=CvmfsStorage(fqrn, self._host),
            obstacles=obstacles,
            lease=Lease(server, self._host, timeouts.lease),
            timeouts=timeouts,
            timeout=timeout,
            clock=clock,
        )
        self._warnings: list[str] = []

    @property
    def can_clone(self) -> bool:  # type: ignore[override]  # it depends on the repository's settings
        """See :attr:`Repository.can_clone`."""
        return not self.is_shared

    @property
    def shared_through(self) -> str | None:  # type: ignore[override]  # it depends on the repository's settings
        """See :attr:`Repository.shared_through`."""
        return self._preflight.gateway()

    @property
    def keeps_xattrs(self) -> bool:  # type: ignore[override]  # it depends on the repository's settings
        """See :attr:`Repository.keeps_xattrs`."""
        return self._preflight.settings().get("CVMFS_INCLUDE_XATTRS") == "true"

    def take_warnings(self) -> list[str]:
        """See :meth:`Repository.take_warnings`."""
        warnings, self._warnings = self._warnings, []
        return warnings

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """See :meth:`Repository.hold`. The host that has the repository's spool decides; a replica or a client has none."""
        self._mount.require_repository()
        with contextlib.ExitStack() as stack:
            with failures(self.fqrn, "take the lock of a run"):
                self._area.mkdir(exist_ok=True)
                stack.enter_context(hold_run(self._area, self.fqrn))
            yield

    def recover(self) -> list[str]:
        """See :meth:`Repository.recover`. A transaction that a claim does not prove to be ours is left alone.

        A tree that was ingested and never completed is removed in a transaction.

        Raises:
            RepositoryError: an operator has to repair the repository first; the hint says how.
        """
        try:
            with self._lock():
                lines = self._own.recover() + self._preflight.require_publishable()
                if self.is_shared:
                    _log.info("repository %s: it is published through the gateway %s", self.fqrn, self.shared_through)
                    self._own.follow()
        except RepositoryLockedError as error:
            _log.info("%s; there is nothing to recover", error.reason)
            return []
        return lines + self._remove_incomplete()

    def _remove_incomplete(self) -> list[str]:
        path = self._ingested.path()
        if path is None:
            return []
        lines = []
        if self._is_incomplete(path):
            with self.transaction() as transaction:
                transaction.remove(path)
                transaction.remove(incomplete(path))
            lines = [f"removed {path}, which an interrupted run has ingested and not completed"]
            _log.info("repository %s: %s", self.fqrn, lines[0])
        self._ingested.forget()
        return lines

    def examine(self) -> list[str]:
        """See :meth:`Repository.examine`."""
        return self._preflight.examine()

    def require_idle(self) -> None:
        """See :meth:`Repository.require_idle`."""
        with self._lock():
            self._preflight.require_no_transaction()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See :meth:`Repository.transaction`. The first change opens the transaction at the server.

        Behind a gateway it is opened at once: the block then reads what is published as long as nobody else can publish.

        Raises:
            RepositoryError: an operator has to repair the repository first, or publishing failed.
            RemovalError: some removals failed; nothing is published.
            SpaceError: the disk is full, or the transaction has outlasted the gateway's lease.
            LeaseBusyError: another publisher host has the gateway's lease.
        """
        with self._lock():
            self._own.recover()
            self._preflight.require_publishable()
            self._preflight.require_no_transaction()
            claims: list[TransactionClaim] = []

            def begin(template: tuple[str, str] | None) -> bool:
                if not claims or template is not None:
                    claim = self._own.open(template)
                    claims.extend([] if claim is None else [claim])
                    return claim is not None
                return True

            transaction = CvmfsTransaction(self._host.mount, begin, self._parents)
            try:
                if self.is_shared:
                    begin(None)
                yield transaction
                changed = transaction.put_in_place()
                if claims and changed:
                    warning = self._own.publish(claims[0])
                    self._warnings += [] if warning is None else [warning]
                    if transaction.completed:
                        self._ingested.forget()
            except SpaceError:
                transaction.make_room()
                raise
            finally:
                with contextlib.suppress(PublisherError):  # the next run aborts it: the claim is still there
                    self._own.abort_if_open()

    def largest_ingested(self, path: str) -> int | None:
        """See :meth:`Repository.largest_ingested`. The directory that the tree is to be in has to be published."""
        if self.is_shared or not self._can_ingest_at(path):
            return None
        largest = self._preflight.largest_ingested()
        return largest if largest is not None and self._own.can_ingest() else None

    @contextlib.contextmanager
    def ingest(self, path: str) -> Iterator[TarStream]:
        """See :meth:`Repository.ingest`. The tool opens and closes the transaction."""
        parent, _, name = path.rpartition("/")
        with self._lock():
            self._own.recover()
            self._preflight.require_publishable()
            if not self._can_ingest_at(path):
                raise RepositoryError(
                    f"repository {self.fqrn}: {path} cannot be ingested: {parent} is missing, or the tree is there"
                )
            self._ingested.note(path)
            try:
                with self._own.ingest(parent) as stream:
                    stream.add(header(incomplete(name).encode(), b"0", mode=0o644, mtime=int(self._clock())))
                    yield stream
            finally:
                with contextlib.suppress(PublisherError):  # the next run does it: the claim and the note are still there
                    self._own.abort_if_open()
                    if not self._is_incomplete(path):
                        self._ingested.forget()

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """See :meth:`Repository.exclusively`. Behind a gateway this is a transaction without changes, for its lease."""
        with self.transaction() if self.is_shared else contextlib.nullcontext():
            yield

    def read(self, path: str) -> bytes | None:
        """See :meth:`Repository.read`."""
        return self._read(lambda: None if self._is_unpublished(path) else self._tree.read(path))

    def exists(self, path: str) -> bool:
        """See :meth:`Repository.exists`."""
        return self._read(lambda: not self._is_unpublished(path) and self._tree.exists(path))

    def links(self) -> dict[str, str]:
        """See :meth:`Repository.links`."""
        return self._read(self._tree.links)

    def read_consistently(self, read: Callable[[], T]) -> T:
        """See :meth:`Repository.read_consistently`. A publish waits for the read, and the read for a publish."""
        return self._read(read, self._timeouts.publish)

    def _read(self, read: Callable[[], T], gate_timeout: float = _GATE_TIMEOUT) -> T:
        with self._gate.enter(gate_timeout):
            return self._mount.read(read)

    def _is_unpublished(self, path: str) -> bool:
        """Return whether a tree is incomplete, or in the clone of an open transaction: the published mount shows both."""
        if self._is_incomplete(path):
            return True
        with failures(self.fqrn, f"look at {path!r}"):
            claim = self._claims.load()
        return claim is not None and claim.clone is not None and f"{path}/".startswith(f"{claim.clone}/")

    def _can_ingest_at(self, path: str) -> bool:
        """Return whether a tree can be ingested at a path.

        The tool gives a missing parent to an owner that not even root can work with, and merges a stream with what is there.
        """
        parent = path.rpartition("/")[0]
        return bool(parent) and self._read(lambda: self._tree.exists(parent) and not self._tree.exists(path))

    def _is_incomplete(self, path: str) -> bool:
        return os.path.lexists(self.root / incomplete(path))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold our lock for the block: the tool's own is not atomic, and lets two transactions open at once."""
        self._mount.require_repository()
        with contextlib.ExitStack() as stack:
            with failures(self.fqrn, "take the lock"):
                self._area.mkdir(exist_ok=True)
                self._gate.create()
                stack.enter_context(hold_lock(self._area / "lock", self.fqrn))
            yield
