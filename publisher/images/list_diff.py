"""The difference between the current image list and the list in an earlier revision of its git repository."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.errors import ListError, UsageError
from publisher.images import reader
from publisher.images.reader import ImageList

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ListDiff:
    """The difference between two image lists.

    Attributes:
        current: the current list.
        changed: the entries and patterns that are new or differ from the earlier list.
        removed: the names of entries that the current list no longer has. Names from patterns are not included, because only
            the registry knows them.
    """

    current: ImageList
    changed: ImageList
    removed: tuple[str, ...]


def since(base: str, path: Path, name_template: str) -> ListDiff:
    """Return the difference between the list at ``path`` and the same file in the git revision ``base``.

    If the list does not exist in ``base`` or is invalid there, it counts as empty and the whole current list is checked.

    Raises:
        UsageError: the list is not in a git repository, or the revision does not exist.
        ListError: the current list is invalid.
    """
    current = reader.load(path, name_template)
    content = _content_at(base, path)
    earlier = ImageList(())
    if content is not None:
        try:
            earlier = reader.parse(content, f"{base}:{path.name}", name_template)
        except ListError:
            earlier = ImageList(())
    return difference(earlier, current)


def difference(earlier: ImageList, current: ImageList) -> ListDiff:
    """Return what changed between two lists. The position of an entry in the file does not matter."""
    entries, patterns = set(earlier.entries), set(earlier.patterns)
    names = {entry.name for entry in current.entries}
    return ListDiff(
        current,
        ImageList(
            tuple(entry for entry in current.entries if entry not in entries),
            tuple(pattern for pattern in current.patterns if pattern not in patterns),
        ),
        tuple(entry.name for entry in earlier.entries if entry.name not in names),
    )


def _content_at(base: str, path: Path) -> bytes | None:
    """Return the file's content in a git revision, None if it does not exist there."""
    import git  # noqa: PLC0415 - only `publisher check --base` needs it, and it takes a tenth of the start of every command
    import git.exc  # noqa: PLC0415

    try:
        with git.Repo(path.parent, search_parent_directories=True) as repository:
            top = repository.working_tree_dir
            if top is None:
                raise UsageError(f"{path} is in a git repository without a working tree")
            tree = repository.commit(base).tree
            relative = path.resolve().relative_to(top).as_posix()
            return bytes(tree.join(relative).data_stream.read())
    except (git.exc.NoSuchPathError, git.exc.InvalidGitRepositoryError):
        raise UsageError(f"{path} is not in a git repository", hint="use --all to check the whole list without one") from None
    except (git.exc.BadName, git.exc.BadObject, ValueError):
        raise UsageError(f"the git revision {base!r} does not exist", hint="fetch it first, or use --all") from None
    except KeyError:
        return None
