"""A finished build, as a value: what a builder gives back, and what a record of the manifest is made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class BuiltImage:
    """A finished SIF and what the record says of it.

    Attributes:
        sif: path of the SIF.
        sha256: of the SIF, 64 hex.
        size: of the SIF, bytes.
        unpacked_size: bytes of all regular files.
        files: number of entries.
        file_index: path of the compressed file index (``layers/files.py`` names its format).
        test: ``ran``, or ``structure`` with the reason in ``notes`` (no shell; another architecture).
        tools: name -> version of what made it, and the compression: with the same ones, the same manifest gives the same bytes.
        notes: what the tree policy dropped or changed, counted.
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
