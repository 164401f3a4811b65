"""The file index of a published build, read where it stands and never as a whole: an image may have millions of files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from publisher import layout
from publisher.errors import CatalogError
from publisher.layers.files import read_file_index
from publisher.storage import failures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publisher.layers.files import IndexedFile
    from publisher.repositories import Repository
    from publisher.resolver.manifest import Version


def check(repository: Repository, version: Version) -> None:
    """Demand that a version's file index is what the manifest says.

    Raises:
        CatalogError: it is missing or damaged, or cannot be read.
    """
    path = layout.file_index_path(version.manifest)
    if not repository.exists(path):
        raise CatalogError(f"the file index {path} is missing")
    with failures(CatalogError, f"the file index {path} cannot be read"), (repository.root / path).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != version.file_index:
            raise CatalogError(f"the file index {path} is damaged")


def lines(repository: Repository, version: Version) -> Iterator[IndexedFile]:
    """The lines of a file index that was checked."""
    with (repository.root / layout.file_index_path(version.manifest)).open("rb") as file:
        yield from read_file_index(file)
