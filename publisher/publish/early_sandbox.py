"""The sandbox of a run's last image, unpacked while its SIF is still read back, run and stored.

Nothing else is under way then, so the repository's transaction is opened early and nobody waits for it. What is in it is
published only if the image is: whatever else becomes of the image, or of the run, discards the transaction.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.errors import PublisherError
from publisher.publish.staged import predecessor
from publisher.state import paths

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from publisher.build.builder import UncheckedSif
    from publisher.plan.model import PlanItem
    from publisher.publish.sandboxes import Unpack
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
        """Open a transaction and unpack a SIF into it; what was begun before is discarded.

        If this is not possible, nothing is left of it, and the log says why: the sandbox is made later, and the reason is met
        again if it lasts.

        Args:
            sandbox: path of the sandbox in the repository.
            sif: the SIF.
        """
        self.discard()
        try:
            with contextlib.ExitStack() as stack:
                transaction = stack.enter_context(self._repository.transaction())
                self._unpack(sif.path, transaction.tree(sandbox), deadline=self._deadline, size=sif.unpacked_size)
                self._begun = _Begun(stack.pop_all(), transaction, sandbox, sif)
        except (OSError, PublisherError) as error:
            _log.info("%s is unpacked when its SIF is stored: %s", sandbox, error)
        else:
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
    def transaction(self, entries: Sequence[StagedEntry]) -> Iterator[tuple[Transaction, Collection[str]]]:
        """Open a transaction for entries: the early one if it has the sandbox of the only entry, else a new one.

        Yields:
            the transaction, and the paths of the sandboxes that are in it already.

        Raises:
            RepositoryError, SpaceError: as :meth:`publisher.targets.repositories.base.Repository.transaction`.
        """
        begun = self._begun
        if begun is None or not begun.is_for(entries):
            self.discard()
            with self._repository.transaction() as transaction:
                yield transaction, ()
            return
        self._begun = None
        with begun.stack:
            yield begun.transaction, (begun.sandbox,)


@dataclass(frozen=True)
class _Begun:
    """An open transaction, which ends with its stack, and the sandbox in it."""

    stack: contextlib.ExitStack
    transaction: Transaction
    sandbox: str
    sif: UncheckedSif

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
