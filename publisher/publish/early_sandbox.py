"""The sandbox of a run's last image, made while its SIF is still read back, run and stored.

Nothing else is under way then, so the repository's transaction is opened early and nobody waits for it. What is in it is
published only if the image is: whatever else becomes of the image, or of the run, discards the transaction.

A repository that can ingest gets the sandbox as a tar stream, whose end is held back until the image is to be published. Else
the SIF is unpacked into the transaction.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.build.sandbox.sandbox_stream import open_squashfs, write_sandbox
from publisher.errors import PublisherError
from publisher.publish.staged import predecessor
from publisher.state import paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from publisher.build.builder import UncheckedSif
    from publisher.plan.model import PlanItem
    from publisher.publish.sandboxes import EarlyFiles, Unpack
    from publisher.publish.staged import StagedEntry
    from publisher.state.snapshot import Snapshot
    from publisher.targets.repositories.base import Repository, Transaction

_log = logging.getLogger(__name__)


def early_sandbox_path(repository: Repository, snapshot: Snapshot, item: PlanItem) -> str | None:
    """Return the path of the one sandbox that an entry needs unpacked from its SIF; None if it needs none, several, or a clone.

    None also in a repository that several hosts publish to: the others would wait for its lease.
    """
    if repository.is_shared or "sandbox" not in item.entry.formats or len(item.targets) != 1:
        return None
    target = item.targets[0]
    sandbox = paths.sandbox_path(target.content)
    before = predecessor(snapshot, item.entry.name, target) if repository.can_clone else None
    may_be_cloned = before is not None and before.sandbox is not None
    if target.published is not None or target.adopted is not None or may_be_cloned or repository.exists(sandbox):
        return None
    return sandbox


class EarlySandbox:
    """At most one transaction that is open early, with one sandbox in it.

    Args:
        repository: the repository.
        unpack: makes a sandbox from a SIF.
        deadline: seconds that unpacking it may take.
    """

    def __init__(self, repository: Repository, unpack: Unpack, deadline: float) -> None:
        self._repository = repository
        self._unpack = unpack
        self._deadline = deadline
        self._begun: _Begun | None = None

    def begin(self, sandbox: str, sif: UncheckedSif) -> None:
        """Begin a stream of a SIF's sandbox, or open a transaction and unpack the SIF; what was begun before is discarded.

        If this is not possible, nothing is left of it, and the log says why: the sandbox is made later, and the reason is met
        again if it lasts.

        Args:
            sandbox: path of the sandbox in the repository.
            sif: the SIF.
        """
        self.discard()
        try:
            largest = self._repository.largest_ingested(sandbox)
            if largest is None or not self._begin_stream(sandbox, sif, largest):
                self._unpack_into_transaction(sandbox, sif)
        except (OSError, PublisherError) as error:
            _log.info("%s is unpacked when its SIF is stored: %s", sandbox, error)

    def _begin_stream(self, sandbox: str, sif: UncheckedSif, largest: int) -> bool:
        """Write the stream of a sandbox but for its end; return False if the repository would lose extended attributes."""
        with contextlib.ExitStack() as stack, open_squashfs(sif.path) as squashfs:
            if squashfs.has_xattrs and self._repository.keeps_xattrs:
                return False
            stream = stack.enter_context(self._repository.ingest(sandbox))
            left_out = write_sandbox(squashfs, sandbox.rpartition("/")[2].encode(), stream, largest=largest)
            stream.hold()
            self._begun = _Begun(stack.pop_all(), sandbox, sif, left_out=tuple(left_out))
        _log.info("%s: its stream was written but for the end, which waits until its SIF is checked and stored", sandbox)
        return True

    def _unpack_into_transaction(self, sandbox: str, sif: UncheckedSif) -> None:
        with contextlib.ExitStack() as stack:
            transaction = stack.enter_context(self._repository.transaction())
            self._unpack(sif.path, transaction.tree(sandbox), deadline=self._deadline, size=sif.unpacked_size)
            self._begun = _Begun(stack.pop_all(), sandbox, sif, transaction)
        _log.info("%s was unpacked while its SIF is checked", sandbox)

    def discard(self) -> None:
        """Discard the transaction that is open early, if there is one."""
        begun, self._begun = self._begun, None
        if begun is None:
            return
        try:
            with contextlib.suppress(_DiscardedError), begun.stack:
                raise _DiscardedError
        except PublisherError as error:  # the next transaction meets it too
            _log.warning("a transaction that was opened early could not be discarded: %s", error)

    @contextlib.contextmanager
    def transaction(self, entries: Sequence[StagedEntry]) -> Iterator[tuple[Transaction, EarlyFiles]]:
        """Open a transaction for entries: the early one if it has the sandbox of the only entry, else a new one.

        A sandbox that was begun as a stream is published first, on its own.

        Yields:
            the transaction, and which files of which sandboxes are there already.

        Raises:
            RepositoryError, SpaceError: as :meth:`publisher.targets.repositories.base.Repository.transaction`.
        """
        begun = self._begun
        if begun is None or not begun.is_for(entries):
            self.discard()
            early: EarlyFiles = {}
        elif begun.transaction is not None:
            self._begun = None
            with begun.stack:
                yield begun.transaction, {begun.sandbox: None}
            return
        else:
            early = self._end_stream(begun)
        with self._repository.transaction() as transaction:
            yield transaction, early

    def _end_stream(self, begun: _Begun) -> EarlyFiles:
        """Publish the sandbox of a stream; without it, the transaction makes it anew."""
        self._begun = None
        try:
            begun.stack.close()
        except PublisherError as error:
            _log.info("%s is unpacked, because it could not be ingested: %s", begun.sandbox, error)
            return {}
        _log.info("%s was ingested; %d large file(s) follow", begun.sandbox, len(begun.left_out))
        return {begun.sandbox: begun.left_out}


@dataclass(frozen=True)
class _Begun:
    """A transaction that is open with a sandbox in it, or the stream of a sandbox; either ends with its stack.

    Attributes:
        transaction: the transaction, None for a stream.
        left_out: paths of the files that are not in the stream.
    """

    stack: contextlib.ExitStack
    sandbox: str
    sif: UncheckedSif
    transaction: Transaction | None = None
    left_out: tuple[bytes, ...] = ()

    def is_for(self, entries: Sequence[StagedEntry]) -> bool:
        """Return whether the sandbox is that of the only entry, unpacked from the SIF that was checked and stored."""
        if len(entries) != 1:
            return False
        builds = [
            (paths.sandbox_path(target.content), entries[0].builds.get(target.digest)) for target in entries[0].item.targets
        ]
        return any(path == self.sandbox and build is not None and self.sif.is_at(build.sif) for path, build in builds)


class _DiscardedError(Exception):
    """An internal signal: discard the transaction."""
