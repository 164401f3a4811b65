"""SIFs that others made: copied byte for byte, and checked as images are, before the test run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from publisher.contract.records import SIF_SOURCE, sif_note
from publisher.contract.units import format_size
from publisher.errors import SpaceError
from publisher.sifs.listing import SifReader
from publisher.sifs.structure import SifError, read_structure

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.layers.limits import LayerLimits
    from publisher.oci import Image
    from publisher.sifs.listing import SifFiles
    from publisher.system.command import UnixAccount

_CHUNK = 1 << 20


def receive(
    image: Image,
    source: Path,
    sif: Path,
    file_index: Path,
    *,
    limits: LayerLimits,
    deadline: float,
    free: int,
    account: UnixAccount | None = None,
) -> SifFiles:
    """Copy a SIF and write its file index.

    Args:
        image: what the list and its registry say of the SIF.
        source: the SIF, as it was fetched.
        sif: the file to make.
        file_index: the file index to make.
        limits: the limits of one image.
        deadline: seconds that one reading of its files may take.
        free: bytes that may be used for the copy.
        account: the account that unsquashfs runs as (needs root), None for this process's.

    Raises:
        SifError: it cannot be published; the reason says why.
        SpaceError: no space for the copy.
        OSError: a file cannot be read or written.
    """
    size = source.stat().st_size
    if size > free:
        raise SpaceError(f"no space for a SIF of {format_size(size)}: {format_size(free)} are free", hint="free space there")
    with source.open("rb") as file:
        structure = read_structure(file.fileno())
    if structure.architecture != image.platform.architecture:
        hint = f"in its entry write platforms: [linux/{structure.architecture}], or list the SIF that is for {image.platform}"
        raise SifError(f"the SIF is for {structure.architecture}, but it is listed for {image.platform}", hint=hint)
    _copy(source, sif, image.content)
    with sif.open("rb") as file:
        files = SifReader(file, structure, limits, deadline=deadline, account=account).write_index(file_index)
    files.notes[SIF_SOURCE] = sif_note(structure.architecture)
    return files


def _copy(source: Path, target: Path, digest: str) -> None:
    """Copy a file whose digest is known. The copy is what is checked and run: the fetched one must not change with it."""
    sha256 = hashlib.sha256()
    with source.open("rb") as file, target.open("xb") as out:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            out.write(chunk)
    if f"sha256:{sha256.hexdigest()}" != digest:
        raise SifError("the fetched SIF has changed on this host", hint="delete it from the blob store (blobs/) and run again")
