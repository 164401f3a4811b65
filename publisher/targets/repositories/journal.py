"""The redo journal of a directory repository: once its journal is on disk, a transaction will be carried out.

Every step can be repeated after a kill at any point, with the same result. A journal names the staging directory of its own
transaction, so an old journal never picks up what a later transaction staged.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from publisher.errors import RepositoryError
from publisher.system import durable, safepath
from publisher.targets.repositories.durable_record import DurableRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

INDEX = ".publisher/index.json"
"""The file that names all others; it is published last."""


@dataclass(frozen=True)
class StagedTree:
    """A tree that is ``staged`` in the staging directory, to be published at ``path`` with the permission bits ``mode``."""

    staged: str
    path: str
    mode: int


@dataclass(frozen=True)
class StagedLink:
    """A symbolic link to be published at ``path`` with the relative ``target``."""

    path: str
    target: str


@dataclass(frozen=True)
class StagedFile:
    """A file that is ``staged`` in the staging directory, to be published at ``path``."""

    staged: str
    path: str


@dataclass(frozen=True)
class Journal(DurableRecord):
    """The changes of a transaction, in the order in which they become visible.

    Attributes:
        stage: the name of the transaction's staging directory.
        trees: trees to publish.
        links: links to publish.
        files: files to publish.
        removals: paths to remove.
    """

    FILE_MODE: ClassVar[int] = 0o600
    DAMAGED_HINT: ClassVar[str] = "finish it with the version that wrote it, or remove it to give that transaction up"

    stage: str
    trees: tuple[StagedTree, ...] = ()
    links: tuple[StagedLink, ...] = ()
    files: tuple[StagedFile, ...] = ()
    removals: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self.trees or self.links or self.files or self.removals)

    def __str__(self) -> str:
        """Return the number of changes of each kind, for a report."""
        return f"{len(self.trees)} tree(s), {len(self.links)} link(s), {len(self.files)} file(s), {len(self.removals)} removal(s)"

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Make a journal from its JSON object."""
        return cls(
            stage=values["stage"],
            trees=tuple(StagedTree(**tree) for tree in values["trees"]),
            links=tuple(StagedLink(**link) for link in values["links"]),
            files=tuple(StagedFile(**file) for file in values["files"]),
            removals=tuple(values["removals"]),
        )

    def redo(self, root: Path, area: Path) -> dict[str, RepositoryError]:
        """Carry out the transaction below ``root``, or the part that is left; removed trees are moved to ``area``.

        Returns:
            The paths that could not be removed, each with its error; they do not stop the other changes.

        Raises:
            RepositoryError: a staged file or tree is missing, or a parent of a path has become a link.
            OSError: a file operation failed; the call can be repeated.
            SpaceError: the disk is full during a removal; the call can be repeated.
        """
        stage = area / self.stage
        for tree in self.trees:
            _place_tree(tree, stage / tree.staged, _destination(root, tree.path))
        for link in self.links:
            _place_link(link.target, stage / "link", _destination(root, link.path))
        for file in sorted(self.files, key=lambda file: file.path == INDEX):
            _place_file(stage / file.staged, _destination(root, file.path))
        return remove_each(self.removals, lambda path: _remove_published(root, path, area))


def remove_each(paths: Iterable[str], remove: Callable[[str], None]) -> dict[str, RepositoryError]:
    """Remove every path, even if one fails; return the paths that failed, each with its error. Raises SpaceError."""
    stuck: dict[str, RepositoryError] = {}
    for path in paths:
        try:
            with durable.failures(RepositoryError, f"cannot remove {path}"):
                remove(path)
        except RepositoryError as error:
            stuck[path] = error
    return stuck


def _destination(root: Path, path: str) -> Path:
    """Return where a path is published, after creating its parent directories."""
    parts = safepath.split(path, RepositoryError)
    destination = safepath.locate(root, parts, RepositoryError)
    safepath.make_parents(root, parts)
    return destination


def _place_tree(tree: StagedTree, staged: Path, destination: Path) -> None:
    """Publish a tree. An ordinary user cannot rename a directory without write permission, so its mode is set afterwards."""
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


def _remove_published(root: Path, path: str, area: Path) -> None:
    """Remove a link or file; move a tree to ``area``, where it is deleted later. Do nothing if there is none."""
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
    _remove_empty_parents(root, parts[:-1])


def _remove_empty_parents(root: Path, parents: tuple[str, ...]) -> None:
    for depth in range(len(parents), 0, -1):
        try:
            root.joinpath(*parents[:depth]).rmdir()
        except FileNotFoundError:  # already removed by a run that was killed
            continue
        except OSError:  # not empty, or no permission
            return
