"""What a change to the image list changes: the list as it is now against the list in a revision of its git repository."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import git
import git.exc

from publisher.errors import ListError, UsageError
from publisher.images import reader
from publisher.images.reader import ImageList

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ListDiff:
    """The difference of two lists.

    Attributes:
        whole: the list as it is now.
        changed: entries and patterns that are new, or say something else than before.
        dropped: names that the list had and has no more (of entries; a pattern's names only a registry knows).
    """

    whole: ImageList
    changed: ImageList
    dropped: tuple[str, ...]


def since(base: str, path: Path, name_template: str) -> ListDiff:
    """What the list at ``path`` changes against the revision ``base``.

    A list that is not there in ``base``, or cannot be read there, is taken for an empty one: all of the new list is checked.

    Raises:
        UsageError: no git repository, or no such revision.
        ListError: the list as it is now has problems.
    """
    now = reader.load(path, name_template)
    content = _content_at(base, path)
    before = ImageList(())
    if content is not None:
        try:
            before = reader.parse(content, f"{base}:{path.name}", name_template)
        except ListError:
            before = ImageList(())
    return difference(before, now)


def difference(before: ImageList, now: ImageList) -> ListDiff:
    """What ``now`` says that ``before`` did not. Where an entry stands in the file does not count."""
    entries, patterns = set(before.entries), set(before.patterns)
    names = {entry.name for entry in now.entries}
    return ListDiff(
        now,
        ImageList(
            tuple(entry for entry in now.entries if entry not in entries),
            tuple(pattern for pattern in now.patterns if pattern not in patterns),
        ),
        tuple(entry.name for entry in before.entries if entry.name not in names),
    )


def _content_at(base: str, path: Path) -> bytes | None:
    try:
        with git.Repo(path.parent, search_parent_directories=True) as repository:
            top = repository.working_tree_dir
            if top is None:
                raise UsageError(f"{path} is in a git repository without a working tree")
            tree = repository.commit(base).tree
            relative = path.resolve().relative_to(top).as_posix()
            return bytes(tree.join(relative).data_stream.read())
    except (git.exc.NoSuchPathError, git.exc.InvalidGitRepositoryError):
        raise UsageError(f"{path} is in no git repository", hint="--all checks the whole list without one") from None
    except (git.exc.BadName, git.exc.BadObject, ValueError):
        raise UsageError(f"there is no revision {base!r}", hint="fetch it first, or say --all") from None
    except KeyError:
        return None
