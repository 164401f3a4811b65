"""A transaction of a CVMFS repository while its block lasts.

Nothing is opened at the server before the first change, so that a block without changes costs nothing and the first change can
say which published tree the transaction begins with. Changes are staged below the mount itself, as in a directory repository,
and put in place by renames inside the overlay's upper directory: they are refused for the same reasons, and cost no copy.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher.errors import CommandError, RemovalError, RepositoryError, SpaceError
from publisher.system import command, durable, safepath
from publisher.targets.repositories.base import Transaction
from publisher.targets.repositories.journal import each_removed
from publisher.targets.repositories.staging import AREA, StagedTransaction, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from publisher.targets.repositories.journal import Journal

_DELETION = 3600.0  # seconds; 22,500 entries took 4 s through the overlay


class CvmfsTransaction(Transaction):
    """Collects the changes.

    Args:
        mount: the repository's mount, writable once the transaction is open at the server.
        begin: opens it, from a template (source and destination) or without one; False where the template was refused.
        parents: directories that are made with the first tree, so that later transactions can clone to them.
    """

    def __init__(self, mount: Path, begin: Callable[[tuple[str, str] | None], bool], parents: Sequence[str] = ()) -> None:
        self._mount = mount
        self._begin = begin
        self._parents = frozenset(parents)
        self._staged: StagedTransaction | None = None
        self._clone: str | None = None
        self._over = False

    def tree(self, path: str) -> Path:
        """See :meth:`Transaction.tree`."""
        return self._opened_for(path).tree(path)

    def link(self, path: str, target: str) -> None:
        """See :meth:`Transaction.link`."""
        self._opened_for(path).link(path, target)

    def write(self, path: str, content: bytes | Path) -> None:
        """See :meth:`Transaction.write`."""
        self._opened_for(path).write(path, content)

    def remove(self, path: str) -> None:
        """See :meth:`Transaction.remove`. A clone is deleted at once, so that something else can stand there."""
        staged = self._opened_for(path, clone=True)
        if path == self._clone:
            self._delete(path)
            self._clone = None
        else:
            staged.remove(path)

    def clone(self, source: str, path: str) -> Path | None:
        """See :meth:`Transaction.clone`. The tool clones when it opens a transaction, and one tree only."""
        original, copy = (safepath.locate(self._mount, _sound(one), RepositoryError) for one in (source, path))
        if os.path.lexists(copy):
            raise RepositoryError(f"{path} is already there")
        first = self._staged is None and not self._over
        possible = first and copy.parent.is_dir() and original.is_dir() and not original.is_symlink()
        if not possible or not self._begin((source, path)):
            return None
        self._stage()
        self._clone = path
        return self._mount / path

    def put_in_place(self) -> bool:
        """Close the transaction and do below the mount what it says; whether there is anything to publish.

        Raises:
            RemovalError: of what goes, some cannot be deleted, and may be half deleted here: not to be published.
            RepositoryError, SpaceError: it could not be done.
        """
        self._over = True
        if self._staged is None:
            return False
        with durable.failures(RepositoryError, f"{self._mount}: cannot put in place what was staged"):
            journal = self._staged.journal()
            self._carry_out(journal)
            durable.delete(self._mount / AREA)
        return bool(journal) or self._clone is not None

    def _carry_out(self, journal: Journal) -> None:
        """Renaming away what is published does not work in an overlay (EXDEV), so that what goes is deleted here."""
        replace(journal, removals=()).redo(self._mount, self._mount / AREA)
        stuck = each_removed(journal.removals, self._delete)
        if stuck:
            raise RemovalError(stuck, published=False)
        if journal.trees or self._clone is not None:
            for parent in sorted(self._parents):
                if not (self._mount / parent).is_dir():
                    safepath.make_parents(self._mount, (*parent.split("/"), ""))

    def _opened_for(self, path: str, *, clone: bool = False) -> StagedTransaction:
        """The staging area, opened by the first change that is not refused for its path alone."""
        _sound(path)
        if self._over:
            raise RepositoryError(f"{path}: the transaction is over")
        if self._clone is not None and not (clone and path == self._clone) and _overlapping(path, self._clone):
            raise RepositoryError(f"{path}: this transaction puts {self._clone}")
        if self._staged is None:
            self._begin(None)
            return self._stage()
        return self._staged

    def _stage(self) -> StagedTransaction:
        stage = self._mount / AREA / "stage"
        with durable.failures(RepositoryError, f"{self._mount}: cannot open a transaction"):
            stage.mkdir(parents=True)
        self._staged = StagedTransaction(self._mount, stage)
        return self._staged

    def _delete(self, path: str) -> None:
        """Delete through the overlay: by the program, which neither depth nor a name stops, and directories above that empty."""
        victim = safepath.locate(self._mount, parts_of(path), RepositoryError)
        if victim.is_dir() and not victim.is_symlink():
            _delete_tree(victim)
        else:
            victim.unlink(missing_ok=True)
        above = path.rpartition("/")[0]
        while above and above not in self._parents and _emptied(self._mount / above):
            above = above.rpartition("/")[0]


def _delete_tree(tree: Path) -> None:
    opened = [] if os.geteuid() == 0 else [["chmod", "-R", "u+rwX", "--", str(tree)]]
    try:
        for argv in (*opened, ["rm", "-rf", "--one-file-system", "--", str(tree)]):
            command.run(argv, deadline=_DELETION)
    except CommandError as error:
        if os.strerror(errno.ENOSPC) in error.stderr:
            raise SpaceError(f"cannot delete {tree}: no room left", hint="make room in /var/spool/cvmfs") from error
        raise RepositoryError(f"cannot delete {tree}: {error.reason}", hint=error.hint) from error


def _emptied(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


def _sound(path: str) -> tuple[str, ...]:
    parts = parts_of(path)
    if parts[0].startswith(".cvmfs"):
        raise RepositoryError(f"unsafe name {path!r}: names of .cvmfs* at the root mean something to CVMFS")
    return parts


def _overlapping(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
