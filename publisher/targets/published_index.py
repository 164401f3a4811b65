"""The file index of a published build, read as a stream where it is published: an image may have millions of files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from publisher.errors import PublishedManifestError
from publisher.fileindex import format as file_index
from publisher.state import paths
from publisher.system.durable import failures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.contract.records import Version
    from publisher.fileindex.format import IndexedFile
    from publisher.targets.repositories.base import Repository


def check(repository: Repository, version: Version) -> None:
    """Check that the published file index of a version has the sha256 that the manifest gives.

    Raises:
        PublishedManifestError: the index is missing or damaged, or cannot be read.
    """
    path = paths.file_index_path(version.content)
    if not repository.exists(path):
        raise PublishedManifestError(f"the file index {path} is missing")
    with failures(PublishedManifestError, f"cannot read the file index {path}"), (repository.root / path).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != version.file_index:
            raise PublishedManifestError(f"the file index {path} is damaged")


def knows_xattrs(repository: Repository, version: Version) -> bool:
    """Return whether a file index that :func:`check` has accepted knows extended attributes."""
    with (repository.root / paths.file_index_path(version.content)).open("rb") as file:
        return file_index.knows_xattrs(file)


def lines(repository: Repository, version: Version) -> Iterator[IndexedFile]:
    """Yield the entries of a file index that :func:`check` has accepted."""
    return map(file_index.parse_line, raw_lines(repository, version))


def raw_lines(repository: Repository, version: Version) -> Iterator[bytes]:
    """Yield the lines of a file index that :func:`check` has accepted, as they are written."""
    with (repository.root / paths.file_index_path(version.content)).open("rb") as file:
        yield from file_index.read_raw_lines(file)
