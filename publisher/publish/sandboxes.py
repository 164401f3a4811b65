"""Writes the sandboxes and file indexes of staged entries into an open transaction of the repository."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from publisher.build.sandbox import patch_clone, unpack
from publisher.errors import PublisherError, RepositoryError
from publisher.state import paths

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from publisher.publish.staged import StagedClone, StagedEntry
    from publisher.state.built import BuiltImage
    from publisher.system.shield import Shield
    from publisher.targets.repositories.base import Repository, Transaction

    EarlyFiles = Mapping[str, Collection[bytes] | None]
    """Path of a sandbox that is there already -> paths in it of the files that are not; None if the transaction has all."""

    class Unpack(Protocol):
        """A function that makes a sandbox from a SIF."""

        def __call__(self, sif: Path, target: Path, *, deadline: float, size: int) -> None:
            """Make the directory ``target``, of files of ``size`` bytes, within ``deadline`` seconds."""


_log = logging.getLogger(__name__)


class SandboxWriter:
    """The sandboxes and file indexes of one transaction.

    Args:
        repository: the repository of the transaction.
        transaction: the open transaction.
        unpack: makes a sandbox from a SIF.
        deadline: seconds that unpacking one sandbox may take.
        shield: hides what the programs that change a clone must not see.
        early: which files of which sandboxes are there already, from the SIFs of the builds.

    Attributes:
        written: paths in the repository of the sandboxes and file indexes that this transaction adds or replaces.
    """

    def __init__(
        self,
        repository: Repository,
        transaction: Transaction,
        unpack: Unpack,
        deadline: float,
        shield: Shield,
        *,
        early: EarlyFiles | None = None,
    ) -> None:
        self._repository = repository
        self._transaction = transaction
        self._unpack = unpack
        self._deadline = deadline
        self._shield = shield
        self._early = early or {}
        self.written: set[str] = set()

    def write(self, staged: StagedEntry) -> StagedEntry:
        """Unpack or clone the sandboxes of an entry, and write their file indexes; return the entry with all builds tested.

        A sandbox without a SIF is run, and compared with its file index, in the transaction, because it is unpacked there. A
        published sandbox stays as it is, with its file index; a new one gets the file index of its own build. On failure nothing
        of the entry is left in the transaction.

        Raises:
            RepositoryError, LayerError: a sandbox cannot be made.
            TestRunError, BuildError: a sandbox without a SIF does not start, or differs from its file index.
            SpaceError: no space left.
        """
        sandboxes: list[str] = []
        builds = dict(staged.builds)
        indexes: dict[str, Path] = {}
        try:
            for target in sorted(staged.item.targets, key=staged.is_cloned, reverse=True):  # a clone comes first
                build = staged.builds.get(target.digest)
                if build is None or target.adopted is not None:
                    continue
                index, sandbox = paths.file_index_path(target.content), paths.sandbox_path(target.content)
                if "sandbox" in staged.item.entry.formats and self._is_missing(sandbox):
                    sandboxes.append(sandbox)
                    builds[target.digest] = self._make_sandbox(sandbox, build, staged.clone if staged.is_cloned(target) else None)
                elif build.source is not None:
                    builds[target.digest] = self._tested(build, self._repository.root / sandbox)
                if index not in self.written and (sandbox in sandboxes or not self._repository.exists(index)):
                    indexes[index] = build.file_index
            for index, content in indexes.items():
                self._transaction.write(index, content)
        except (OSError, PublisherError):
            for path in (*sandboxes, *(index for index in indexes if not self._repository.exists(index))):
                self._transaction.remove(path)
            raise
        self.written.update(sandboxes, indexes)
        return replace(staged, builds=builds)

    def finish(self) -> None:
        """Add the file that makes the sandboxes' directory a CVMFS catalog of its own, with the first sandbox."""
        mark = f"{paths.IMAGES}/{paths.CATALOG_MARK}"
        if any(path.startswith(f"{paths.IMAGES}/") for path in self.written) and not self._repository.exists(mark):
            self._transaction.write(mark, b"")

    def _is_missing(self, sandbox: str) -> bool:
        return sandbox not in self.written and not self._repository.exists(sandbox)

    def _make_sandbox(self, sandbox: str, build: BuiltImage, clone: StagedClone | None) -> BuiltImage:
        if sandbox in self._early:
            self._complete(sandbox, build)
            return build
        if clone is not None:
            tree = self._clone(build, clone)
            if tree is not None:
                return self._tested(build, tree, clone.patch.added)
        tree = self._transaction.tree(sandbox)
        if build.source is not None:
            build.source.unpack(tree, deadline=self._deadline, shield=self._shield)
        else:
            self._unpack(build.sif, tree, deadline=self._deadline, size=build.unpacked_size)
        return self._tested(build, tree)

    def _complete(self, sandbox: str, build: BuiltImage) -> None:
        """Add the files that an ingested sandbox lacks."""
        left_out = self._early[sandbox]
        if left_out is None:
            return
        tree = self._transaction.complete(sandbox)
        if tree is None:
            raise RepositoryError(f"{sandbox} was ingested, and is not there", hint="run again")
        if left_out:
            patch_clone.add_files(tree, left_out, partial(self._extract, build))

    def _clone(self, build: BuiltImage, clone: StagedClone) -> Path | None:
        """Make a sandbox from a clone; return None, with nothing left of the attempt, where that is not possible."""
        tree = self._transaction.clone(clone.source, clone.sandbox)
        if tree is None:
            return None
        try:
            patch_clone.apply_patch(tree, clone.patch, partial(self._extract, build))
        except RepositoryError as error:
            _log.info("%s is unpacked instead of cloned: %s", clone.sandbox, error)
            self._transaction.remove(clone.sandbox)
            return None
        return tree

    def _extract(self, build: BuiltImage, target: Path, wanted: Collection[bytes]) -> None:
        if build.source is not None:
            build.source.extract_paths(target, wanted, deadline=self._deadline, shield=self._shield)
        else:
            unpack.extract_paths(build.sif, target, wanted, deadline=self._deadline, shield=self._shield)

    @staticmethod
    def _tested(build: BuiltImage, tree: Path, changed: Collection[bytes] | None = None) -> BuiltImage:
        """Return a build after the test of its sandbox; one with a SIF was tested before."""
        if build.source is None:
            return build
        test, reason = build.source.check(tree, None if changed is None else frozenset(changed))
        return replace(build, test=test, notes={**build.notes, **({"test": reason} if reason else {})})
