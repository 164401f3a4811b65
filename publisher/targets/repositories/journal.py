"""The redo journal of a directory repository: a transaction is published from the moment that its journal is on disk.

Everything in it can be done again after a kill at any point, with the same result. The journal of a transaction names its own
staging directory, so that an old journal never picks up what a later transaction staged.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from publisher.errors import RepositoryError
from publisher.system import durable, safepath
from publisher.targets.repositories import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

INDEX = ".publisher/index.json"
"""The file that names all others: it appears last."""


@dataclass(frozen=True)
class StagedTree:
    """A tree made as ``staged`` in the staging directory, to appear at ``path`` with the permission bits ``mode``."""

    staged: str
    path: str
    mode: int


@dataclass(frozen=True)
class StagedLink:
    """A symbolic link at ``path`` with the relative ``target``."""

    path: str
    target: str


@dataclass(frozen=True)
class StagedFile:
    """A file written as ``staged`` in the staging directory, to appear at ``path``."""

    staged: str
    path: str


@dataclass(frozen=True)
class Journal:
    """What a transaction does, in the order in which it becomes visible; ``stage`` is the staging directory's name."""

    stage: str
    trees: tuple[StagedTree, ...] = ()
    links: tuple[StagedLink, ...] = ()
    files: tuple[StagedFile, ...] = ()
    removals: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.trees or self.links or self.files or self.removals)

    def __str__(self) -> str:
        """The numbers, for a report."""
        return f"{len(self.trees)} tree(s), {len(self.links)} link(s), {len(self.files)} file(s), {len(self.removals)} removal(s)"

    def save(self, path: Path) -> None:
        """Write the journal: from here on the transaction will be carried out, whatever happens. Raises OSError."""
        note.save(path, asdict(self), mode=0o600)

    @classmethod
    def load(cls, path: Path) -> Journal | None:
        """The journal at ``path``, None where there is none.

        Raises:
            RepositoryError: what stands there is no journal of this program.
            OSError: it cannot be read.
        """
        return note.load(path, cls._parsed, "finish it with the version that wrote it, or remove it to give that transaction up")

    @classmethod
    def _parsed(cls, values: dict[str, Any]) -> Journal:
        return cls(
            stage=values["stage"],
            trees=tuple(StagedTree(**tree) for tree in values["trees"]),
            links=tuple(StagedLink(**link) for link in values["links"]),
            files=tuple(StagedFile(**file) for file in values["files"]),
            removals=tuple(values["removals"]),
        )

    def redo(self, root: Path, area: Path) -> dict[str, RepositoryError]:
        """Carry the transaction out below ``root``, or what is left of it; removed trees end up in ``area``.

        Returns:
            The paths that could not be taken away, each with its reason: what else is to be done does not wait for them.

        Raises:
            RepositoryError: something staged is lost, or a parent of a path became a link.
            OSError: a file operation failed; it can be tried again.
            SpaceError: no room for a removal; it can be tried again.
        """
        stage = area / self.stage
        for tree in self.trees:
            _place_tree(tree, stage / tree.staged, _destination(root, tree.path))
        for link in self.links:
            _place_link(link.target, stage / "link", _destination(root, link.path))
        for file in sorted(self.files, key=lambda file: file.path == INDEX):
            _place_file(stage / file.staged, _destination(root, file.path))
        return each_removed(self.removals, lambda path: _take_away(root, path, area))


def each_removed(paths: Iterable[str], remove: Callable[[str], None]) -> dict[str, RepositoryError]:
    """Remove every path, also after one that could not be; which could not, each with its reason. Raises SpaceError."""
    stuck: dict[str, RepositoryError] = {}
    for path in paths:
        try:
            with durable.failures(RepositoryError, f"cannot remove {path}"):
                remove(path)
        except RepositoryError as error:
            stuck[path] = error
    return stuck


def _destination(root: Path, path: str) -> Path:
    parts = safepath.split(path, RepositoryError)
    destination = safepath.locate(root, parts, RepositoryError)
    safepath.make_parents(root, parts)
    return destination


def _place_tree(tree: StagedTree, staged: Path, destination: Path) -> None:
    """A directory without write permission cannot be renamed by an ordinary user (rename(2)): its mode is set in between."""
    if staged.is_dir():
        staged.chmod(tree.mode | 0o700)
        staged.rename(destination)
    elif not destination.is_dir():
        raise _lost(destination)
    if stat.S_IMODE(destination.lstat().st_mode) != tree.mode:
        destination.chmod(tree.mode)


def _place_link(target: str, staged: Path, destination: Path) -> None:
    if destination.is_symlink() and os.readlink(destination) == target:  # noqa: PTH115 - the text, not a Path made of it
        return
    staged.unlink(missing_ok=True)
    staged.symlink_to(target)
    staged.replace(destination)


def _place_file(staged: Path, destination: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        staged.replace(destination)
    if not destination.is_file():
        raise _lost(destination)


def _lost(destination: Path) -> RepositoryError:
    return RepositoryError(
        f"{destination} is neither staged nor in place",
        hint="somebody removed it; remove .transaction/journal to give that transaction up",
    )


def _take_away(root: Path, path: str, area: Path) -> None:
    parts = safepath.split(path, RepositoryError)
    victim = safepath.locate(root, parts, RepositoryError)
    try:
        mode = victim.lstat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        if not mode & stat.S_IWUSR:
            victim.chmod(stat.S_IMODE(mode) | stat.S_IRWXU)
        victim.rename(area / f"removed.{durable.token()}")
    elif mode is not None:
        victim.unlink()
    _remove_emptied(root, parts[:-1])


def _remove_emptied(root: Path, parents: tuple[str, ...]) -> None:
    for depth in range(len(parents), 0, -1):
        try:
            root.joinpath(*parents[:depth]).rmdir()
        except FileNotFoundError:  # a run that was killed has been here
            continue
        except OSError:  # not empty, or not ours to remove
            return
