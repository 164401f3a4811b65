"""The staging of a transaction's changes: everything is collected, nothing is visible yet.

Every change that can be refused is refused here, because a transaction cannot be undone once its journal is written.
"""

from __future__ import annotations

import filecmp
import itertools
import os
import shutil
import stat
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher.errors import RepositoryError
from publisher.system import durable, safepath
from publisher.targets.repositories.base import Transaction
from publisher.targets.repositories.journal import INDEX, Journal, StagedFile, StagedLink, StagedTree

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    Staged = StagedTree | StagedLink | StagedFile

STAGING_AREA = ".transaction"
"""The directory at the repository's root for the lock, the journal and staged files; only its owner may enter."""


def split_path(path: str) -> tuple[str, ...]:
    """Return the parts of a path inside the repository.

    Raises:
        RepositoryError: the path is unsafe (see :func:`publisher.system.safepath.split`), or in the staging area.
    """
    parts = safepath.split(path, RepositoryError)
    if parts[0] == STAGING_AREA:
        raise RepositoryError(f"unsafe name {path!r}: {STAGING_AREA} is reserved for the repository itself")
    return parts


class StagedTransaction(Transaction):
    """A transaction that collects its changes in ``stage``, an empty directory on the repository's file system."""

    def __init__(self, root: Path, stage: Path) -> None:
        self._root = root
        self._stage = stage
        self._staged_names = map(str, itertools.count())
        self._changes: dict[str, Staged] = {}
        self._removals: dict[str, None] = {}  # an ordered set
        self._parents: Counter[str] = Counter()  # parent directories of the changes, and how often each occurs
        self._open = True

    def tree(self, path: str) -> Path:
        """See :meth:`Transaction.tree`. The top directory is published readable by everybody, whatever the umask."""
        with _failures("stage the tree", path):
            published = self._check_addition(path, StagedTree)
            if os.path.lexists(published):
                raise RepositoryError(f"{path} already exists")
            if path in self._changes:
                raise RepositoryError(f"{path} is already in this transaction")
            tree = StagedTree(next(self._staged_names), path, mode=0)
            self._add(tree)
            return self._stage / tree.staged

    def link(self, path: str, target: str) -> None:
        """See :meth:`Transaction.link`. A link that is already published with this target is not replaced."""
        with _failures("stage the link", path):
            published = self._check_addition(path, StagedLink)
            if safepath.check_target(split_path(path), target, RepositoryError)[0] == STAGING_AREA:
                raise RepositoryError(f"the link {path} points into {STAGING_AREA}")
            if os.path.lexists(published) and not published.is_symlink():
                raise RepositoryError(f"{path} exists and is not a link")
            self._cancel(path)
            if not (published.is_symlink() and os.readlink(published) == target):  # noqa: PTH115 - the text, not a Path of it
                self._add(StagedLink(path, target))

    def write(self, path: str, content: bytes | Path) -> None:
        """See :meth:`Transaction.write`. A file that is already published with this content is not replaced."""
        with _failures("stage the file", path):
            published = self._check_addition(path, StagedFile)
            exists = os.path.lexists(published)
            if exists and not stat.S_ISREG(published.lstat().st_mode):
                raise RepositoryError(f"{path} exists and is not a file")
            self._cancel(path)
            if not (exists and _has_content(published, content)):
                file = StagedFile(next(self._staged_names), path)
                staged = self._stage / file.staged
                if isinstance(content, bytes):
                    staged.write_bytes(content)
                else:
                    shutil.copyfile(content, staged)
                staged.chmod(0o644)
                self._add(file)

    def remove(self, path: str) -> None:
        """See :meth:`Transaction.remove`. Staged files are deleted with the staging directory."""
        with _failures("remove", path):
            published = self._check_path(path)
            self._cancel(path)
            if os.path.lexists(published):
                self._require_writable(path, published)
                self._removals[path] = None

    def journal(self) -> Journal:
        """Close the transaction and return the journal of its changes.

        Raises:
            RepositoryError: the caller did not create a tree that it asked for.
            OSError: a staged tree cannot be examined.
        """
        self._open = False
        changes = self._changes.values()
        return Journal(
            stage=self._stage.name,
            trees=tuple(self._with_mode(tree) for tree in changes if isinstance(tree, StagedTree)),
            links=tuple(link for link in changes if isinstance(link, StagedLink)),
            files=tuple(file for file in changes if isinstance(file, StagedFile)),
            removals=tuple(sorted(self._removals, key=self._removal_order)),
        )

    def _with_mode(self, tree: StagedTree) -> StagedTree:
        """Return the tree with the mode that it will be published with."""
        try:
            mode = (self._stage / tree.staged).lstat().st_mode
        except FileNotFoundError:
            mode = 0
        if not stat.S_ISDIR(mode):
            raise RepositoryError(f"{tree.path}: no directory was created for the tree")
        return replace(tree, mode=stat.S_IMODE(mode) | 0o555)

    def _removal_order(self, path: str) -> int:
        """Return a sort key: the index is removed first, then links, then everything else, so that no name ever dangles."""
        if path == INDEX:
            return 0
        return 1 if (self._root / path).is_symlink() else 2

    def _check_path(self, path: str) -> Path:
        """Return the published path, after checking that the transaction has no change below it."""
        if not self._open:
            raise RepositoryError(f"{path}: the transaction is over")
        parts = split_path(path)
        if self._parents[path]:
            raise RepositoryError(f"{path}: this transaction changes something below it")
        return safepath.locate(self._root, parts, RepositoryError)

    def _check_addition(self, path: str, kind: type[Staged]) -> Path:
        """Return the published path, after checking that something of this kind can be added there."""
        published = self._check_path(path)
        for parent in _parents(path):
            if parent in self._changes or parent in self._removals:
                raise RepositoryError(f"{path}: this transaction adds or removes {parent}")
        if not isinstance(self._changes.get(path), kind | None):
            raise RepositoryError(f"{path} is already in this transaction, as something else")
        self._require_writable(path, published)
        return published

    def _require_writable(self, path: str, published: Path) -> None:
        """Refuse now what rename(2) would refuse once the journal is written."""
        directory = published.parent
        while not directory.is_dir():
            directory = directory.parent
        if not os.access(directory, os.W_OK | os.X_OK):
            raise RepositoryError(f"{path}: no permission to write in {directory}")
        if published.is_dir() and not published.is_symlink() and not _can_rename(published):
            raise RepositoryError(f"{path} belongs to another user")

    def _add(self, staged: Staged) -> None:
        self._changes[staged.path] = staged
        self._parents.update(_parents(staged.path))

    def _cancel(self, path: str) -> None:
        """Cancel what this transaction does at ``path``."""
        self._removals.pop(path, None)
        if self._changes.pop(path, None) is not None:
            self._parents.subtract(_parents(path))


def _failures(action: str, path: str) -> AbstractContextManager[None]:
    return durable.failures(RepositoryError, f"cannot {action} {path!r}")


def _has_content(file: Path, content: bytes | Path) -> bool:
    if isinstance(content, bytes):
        return file.stat().st_size == len(content) and file.read_bytes() == content
    return filecmp.cmp(file, content, shallow=False)


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _can_rename(directory: Path) -> bool:
    """Return whether we may rename a directory: its ``..`` changes, so it must be writable, or ours to chmod."""
    return os.access(directory, os.W_OK) or directory.lstat().st_uid == os.geteuid()
