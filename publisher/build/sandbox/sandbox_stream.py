"""The sandbox of an image as a tar stream, made from its SIF."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from publisher.build.sandbox.patch_clone import is_listable
from publisher.errors import RepositoryError
from publisher.sifs.squashfs import ERRORS, Squashfs
from publisher.sifs.squashfs_tree import SquashfsTree
from publisher.sifs.structure import SifError, squashfs_offset
from publisher.state.paths import CATALOG_MARK
from publisher.system.tar_stream import header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.sifs.squashfs_tree import TreeEntry
    from publisher.system.tar_stream import TarStream

_FRAGMENTS = 256  # fragment blocks of 128 KiB to remember


@contextlib.contextmanager
def open_squashfs(sif: Path) -> Iterator[Squashfs]:
    """Open the squashfs of a SIF that this program has made; what the block raises because of damage becomes RepositoryError.

    Raises:
        RepositoryError: the SIF cannot be read.
    """
    with sif.open("rb") as file:
        try:
            yield Squashfs(file.fileno(), squashfs_offset(file.fileno()))
        except SifError as error:
            raise RepositoryError(f"the sandbox cannot be read from its SIF: {error.reason}", hint=error.hint) from error
        except ERRORS as error:
            raise RepositoryError(f"the sandbox cannot be read from its SIF: {error}") from error


def write_sandbox(squashfs: Squashfs, root: bytes, stream: TarStream, *, largest: int) -> list[bytes]:
    """Add the members of a SIF's sandbox to a stream.

    Args:
        squashfs: the squashfs of the SIF.
        root: the name of the sandbox.
        stream: the stream.
        largest: bytes; larger files are left out, but for those that have several names, or a name that
            :func:`publisher.build.sandbox.unpack.extract_paths` cannot be asked for.

    Returns:
        The paths in the sandbox of the files that were left out.

    Raises:
        ValueError, and the other errors of a damaged squashfs.
        OSError: the stream cannot be written.
    """
    left_out: list[bytes] = []
    content = squashfs.contents(_FRAGMENTS)
    for entry in SquashfsTree(squashfs).entries():
        size = 0 if entry.file is None else entry.file.size
        if size > largest and not entry.has_links and is_listable(entry.path):
            left_out.append(entry.path)
            continue
        stream.add(_header(entry, root, size), content(entry.file) if entry.file is not None and size else (), size)
        if not entry.path:
            stream.add(_mark(entry, root))
    return left_out


def _mark(top: TreeEntry, root: bytes) -> bytes:
    """Return the header of the file that makes the sandbox a CVMFS catalog of its own."""
    return header(root + b"/" + CATALOG_MARK.encode(), b"0", mode=0o644, uid=top.uid, gid=top.gid, size=0, mtime=top.mtime)


def _header(entry: TreeEntry, root: bytes, size: int) -> bytes:
    path = root + b"/" + entry.path if entry.path else root
    link = root + b"/" + entry.link if entry.kind == b"1" else entry.link
    return header(path, entry.kind, mode=entry.mode, uid=entry.uid, gid=entry.gid, size=size, mtime=entry.mtime, link=link)
