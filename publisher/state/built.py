"""A finished build as a value: a builder returns it, and a version in the manifest is made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class BuiltImage:
    """A finished SIF and the facts about it that the manifest records.

    Attributes:
        sif: path of the SIF.
        sha256: sha256 of the SIF, 64 hex digits.
        size: size of the SIF in bytes.
        unpacked_size: bytes of all regular files.
        files: number of entries in the tree.
        file_index: path of the compressed file index (:mod:`publisher.fileindex.format`).
        test: ``ran``, or ``structure`` with the reason in ``notes`` (no shell, another architecture).
        tools: name -> version of the programs that built it, and the compression; the same tools build the same image into the
            same bytes.
        notes: what the build dropped from the tree or changed in it, counted.
        config: digest of the image's config, which it was built from; None if that is not known.
        chunk_table: path of the SIF's chunk table (:mod:`publisher.contract.chunk_table`), None if there is none.
        chunks: ``sha256`` and ``size`` of the chunk table, None if there is none.
    """

    sif: Path
    sha256: str
    size: int
    unpacked_size: int
    files: int
    file_index: Path
    test: str
    tools: dict[str, str]
    notes: dict[str, int | str] = field(default_factory=dict)
    config: str | None = None
    chunk_table: Path | None = None
    chunks: dict[str, str | int] | None = None
