"""Names inside a repository or an origin: relative paths with ``/`` that cannot point outside of it.

Names come from the image list and from manifests, that is from other people. Repositories and origins use the same checks, so
that a name is either accepted by both or refused by both, before anything is written.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.errors import PublisherError

_PART_BYTES = 255
"""NAME_MAX of the file systems in use (limits.h)."""
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")


def split(name: str, error: type[PublisherError]) -> tuple[str, ...]:
    """Return the parts of a name.

    Raises:
        PublisherError: (the class ``error``) the name is empty, absolute or not UTF-8, or has an empty part, ``.`` or ``..``,
            a part of more than 255 bytes, or control characters such as NUL.
    """
    parts = tuple(name.split("/"))
    for part in parts:
        problem = _problem(part)
        if problem:
            raise error(f"unsafe name {name!r}: {problem}")
    return parts


def _problem(part: str) -> str | None:
    """Return what makes a part unsafe, None if it is safe."""
    if part == "":
        return "it is absolute or has an empty part"
    if part in (".", ".."):
        return f"it has a part {part!r}"
    if _CONTROL_CHARACTER.search(part):
        return "it has control characters"
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return "it is not UTF-8"
    return f"it has a part of more than {_PART_BYTES} bytes" if size > _PART_BYTES else None


def locate(root: Path, parts: tuple[str, ...], error: type[PublisherError]) -> Path:
    """Return the path of a name below ``root``; only its parents are checked, not the path itself.

    Raises:
        PublisherError: (the class ``error``) a parent is a symbolic link or not a directory.
        OSError: a parent cannot be examined.
    """
    path = root
    for part in parts[:-1]:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            break
        if not stat.S_ISDIR(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a directory"
            raise error(f"unsafe name {'/'.join(parts)!r}: {path.relative_to(root)} is {kind}")
    return root.joinpath(*parts)


def check_target(parts: tuple[str, ...], target: str, error: type[PublisherError]) -> tuple[str, ...]:
    """Return the parts of the name that a link at ``parts`` with the relative ``target`` points to.

    ``..`` may only come first: after another part its meaning would depend on what that part is. ``$(`` is refused because
    CVMFS clients expand ``$(NAME)`` in links from their own environment ("Variant Symlinks" in the CernVM-FS documentation).

    Raises:
        PublisherError: (the class ``error``) the target is absolute or unsafe, leaves the root, or is the root itself.
    """
    steps = target.split("/")
    ups = next((count for count, step in enumerate(steps) if step != ".."), len(steps))
    if ups >= len(parts) or not steps[ups:]:
        raise error(f"the target {target!r} of the link {'/'.join(parts)!r} leaves the tree or is a directory above the link")
    if "$(" in target:
        raise error(f"the target {target!r} of the link {'/'.join(parts)!r} contains '$(', which CVMFS clients expand")
    return parts[: len(parts) - 1 - ups] + split("/".join(steps[ups:]), error)


def make_parents(root: Path, parts: tuple[str, ...]) -> None:
    """Create the parent directories of a name that :func:`locate` has checked.

    Their mode is 0755 whatever the umask, also if a killed run left one with less. Raises OSError.
    """
    path = root
    for part in parts[:-1]:
        path = path / part
        path.mkdir(exist_ok=True)
        open_to_readers(path)


def open_to_readers(directory: Path) -> None:
    """Give a directory at least mode 0755 if this user owns it; leave it alone otherwise. Raises OSError."""
    status = directory.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o755 != 0o755 and status.st_uid == os.geteuid():  # noqa: PLR2004 - an octal mode explains itself
        directory.chmod(mode | 0o755)
