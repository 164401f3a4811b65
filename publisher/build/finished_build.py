"""A finished build in its directory, from which a later run takes it: SIF, chunk table, file index and the record of them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from typing import TYPE_CHECKING

from publisher.contract.files import replace
from publisher.state.built import BuiltImage
from publisher.system.ownership import is_own, is_own_file

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

SIF, TABLE, FILE_INDEX = "image.sif", "image.chunks", "files.zst"
"""The names of the files in the directory."""
_RECORD = "built.json"
_RECORD_FORMAT = 4  # a finished build with another format is built again


def save(built: BuiltImage, directory: Path, digest: str) -> None:
    """Make a finished build durable, with its record: the config that it was built from, and the sha256 of its files.

    Args:
        built: the build, whose files are in the directory.
        directory: the directory.
        digest: digest of the config.

    Raises:
        OSError: a file cannot be written.
    """
    for path in filter(None, (built.sif, built.chunk_table, built.file_index)):
        path.chmod(0o644)
        sync(path)
    record = {
        "format": _RECORD_FORMAT,
        "digest": digest,
        "file_index_sha256": sha256_of(built.file_index),
        "build": built.facts(),
    }
    replace(str(directory / _RECORD), json.dumps(record).encode())


def load(directory: Path, digest: str) -> BuiltImage | None:
    """Return the finished build of a config (its digest).

    None if there is none, if it was built from another config, if its files have changed, or if another account could
    have written them. Raises OSError if its files cannot be read.
    """
    sif, table, file_index, record = (directory / name for name in (SIF, TABLE, FILE_INDEX, _RECORD))
    try:
        if not is_own(directory.lstat()) or not all(map(is_own_file, (sif, file_index, record))):
            return None
        saved = json.loads(record.read_bytes())
        bound = {"format": _RECORD_FORMAT, "digest": digest, "file_index_sha256": sha256_of(file_index)}
        built = BuiltImage(sif=sif, file_index=file_index, chunk_table=table if is_own_file(table) else None, **saved["build"])
        is_intact = all(saved.get(name) == value for name, value in bound.items()) and sha256_of(sif) == built.sha256
        if built.chunks is not None:
            is_intact = is_intact and built.chunk_table is not None and sha256_of(table) == built.chunks["sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not is_intact:
        _log.debug("the build in %s is made again: its files have changed, or it is another image's", directory)
    return built if is_intact else None


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, 64 hex digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Write a file's data to the disk (fsync(2)). Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
