"""A transaction of a directory repository while it is open: everything is staged, nothing is visible.

What can be refused is refused here, before the journal is written: afterwards there is no way back.
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

AREA = ".transaction"
"""The directory at the repository's root that holds the lock, the journal and what is staged; only its owner may enter."""


def parts_of(path: str) -> tuple[str, ...]:
    """The parts of a path inside the repository.

    Raises:
        RepositoryError: unsafe (see :func:`publisher.system.safepath.split`), or in the staging area.
    """
    parts = safepath.split(path, RepositoryError)
    if parts[0] == AREA:
        raise RepositoryError(f"unsafe name {path!r}: {AREA} is the repository's own")
    return parts


class StagedTransaction(Transaction):
    """Collects the changes of one transaction in ``stage``, an empty directory of its own on the repository's file system."""

    def __init__(self, root: Path, stage: Path) -> None:
        self._root = root
        self._stage = stage
        self._numbers = itertools.count()
        self._put: dict[str, Staged] = {}
        self._removals: dict[str, None] = {}  # an ordered set
        self._above: Counter[str] = Counter()  # directories above what is put, and how often each
        self._open = True

    def tree(self, path: str) -> Path:
        """See :meth:`Transaction.tree`. Its top directory will be readable by everybody, whatever the umask."""
        with _failures("stage the tree", path):
            published = self._addable(path, StagedTree)
            if os.path.lexists(published):
                raise RepositoryError(f"{path} is already there")
            if path in self._put:
                raise RepositoryError(f"{path} is already in this transaction")
            tree = StagedTree(str(next(self._numbers)), path, mode=0)
            self._add(tree)
            return self._stage / tree.staged

    def link(self, path: str, target: str) -> None:
        """See :meth:`Transaction.link`. A link that is published just so is not made again."""
        with _failures("stage the link", path):
            published = self._addable(path, StagedLink)
            if safepath.check_target(parts_of(path), target, RepositoryError)[0] == AREA:
                raise RepositoryError(f"the link {path} points into {AREA}")
            if os.path.lexists(published) and not published.is_symlink():
                raise RepositoryError(f"{path} is there and is not a link")
            self._forget(path)
            if not (published.is_symlink() and os.readlink(published) == target):  # noqa: PTH115 - the text, not a Path of it
                self._add(StagedLink(path, target))

    def write(self, path: str, content: bytes | Path) -> None:
        """See :meth:`Transaction.write`. A file that is published with these bytes is not written again."""
        with _failures("stage the file", path):
            published = self._addable(path, StagedFile)
            there = os.path.lexists(published)
            if there and not stat.S_ISREG(published.lstat().st_mode):
                raise RepositoryError(f"{path} is there and is not a file")
            self._forget(path)
            if not (there and _has(published, content)):
                file = StagedFile(str(next(self._numbers)), path)
                staged = self._stage / file.staged
                if isinstance(content, bytes):
                    staged.write_bytes(content)
                else:
                    shutil.copyfile(content, staged)
                staged.chmod(0o644)
                self._add(file)

    def remove(self, path: str) -> None:
        """See :meth:`Transaction.remove`. What was staged goes with the staging directory."""
        with _failures("remove", path):
            published = self._sound(path)
            self._forget(path)
            if os.path.lexists(published):
                self._require_writable(path, published)
                self._removals[path] = None

    def journal(self) -> Journal:
        """Close the transaction; what it does.

        Raises:
            RepositoryError: the caller did not make a tree that it asked for.
            OSError: a staged tree cannot be looked at.
        """
        self._open = False
        put = self._put.values()
        return Journal(
            stage=self._stage.name,
            trees=tuple(self._finished(tree) for tree in put if isinstance(tree, StagedTree)),
            links=tuple(link for link in put if isinstance(link, StagedLink)),
            files=tuple(file for file in put if isinstance(file, StagedFile)),
            removals=tuple(sorted(self._removals, key=self._rank)),
        )

    def _finished(self, tree: StagedTree) -> StagedTree:
        try:
            mode = (self._stage / tree.staged).lstat().st_mode
        except FileNotFoundError:
            mode = 0
        if not stat.S_ISDIR(mode):
            raise RepositoryError(f"{tree.path}: no directory was made for the tree")
        return replace(tree, mode=stat.S_IMODE(mode) | 0o555)

    def _rank(self, path: str) -> int:
        """What names others is taken away before what it names: the index, then links, then all else."""
        if path == INDEX:
            return 0
        return 1 if (self._root / path).is_symlink() else 2

    def _sound(self, path: str) -> Path:
        """The published path, for a change that fits with those above and below it."""
        if not self._open:
            raise RepositoryError(f"{path}: the transaction is over")
        parts = parts_of(path)
        if self._above[path]:
            raise RepositoryError(f"{path}: this transaction puts something below it")
        return safepath.locate(self._root, parts, RepositoryError)

    def _addable(self, path: str, kind: type[Staged]) -> Path:
        published = self._sound(path)
        for above in _ancestors(path):
            if above in self._put or above in self._removals:
                raise RepositoryError(f"{path}: this transaction puts or removes {above}")
        if not isinstance(self._put.get(path), kind | None):
            raise RepositoryError(f"{path} is already in this transaction, as something else")
        self._require_writable(path, published)
        return published

    def _require_writable(self, path: str, published: Path) -> None:
        """Refuse now what rename(2) would refuse when the journal is written."""
        directory = published.parent
        while not directory.is_dir():
            directory = directory.parent
        if not os.access(directory, os.W_OK | os.X_OK):
            raise RepositoryError(f"{path}: no permission to write in {directory}")
        if published.is_dir() and not published.is_symlink() and not _own(published):
            raise RepositoryError(f"{path}: belongs to another user")

    def _add(self, staged: Staged) -> None:
        self._put[staged.path] = staged
        self._above.update(_ancestors(staged.path))

    def _forget(self, path: str) -> None:
        """Take back what this transaction does at ``path``."""
        self._removals.pop(path, None)
        if self._put.pop(path, None) is not None:
            self._above.subtract(_ancestors(path))


def _failures(doing: str, path: str) -> AbstractContextManager[None]:
    return durable.failures(RepositoryError, f"cannot {doing} {path!r}")


def _has(file: Path, content: bytes | Path) -> bool:
    if isinstance(content, bytes):
        return file.stat().st_size == len(content) and file.read_bytes() == content
    return filecmp.cmp(file, content, shallow=False)


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _own(directory: Path) -> bool:
    """Whether we may rename it: its ``..`` changes, so it takes write permission on itself, or the right to chmod it."""
    return os.access(directory, os.W_OK) or directory.lstat().st_uid == os.geteuid()
