"""A finished build as a value: a builder returns it, and a version in the manifest is made from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from publisher.system.shield import Shield


class SandboxSource(ABC):
    """What the sandbox of an image without a SIF is made from."""

    @abstractmethod
    def unpack(self, target: Path, *, deadline: float, shield: Shield) -> None:
        """Make the sandbox, with its catalog mark.

        Args:
            target: the directory to make, in an existing directory; it is deleted on failure.
            deadline: seconds.
            shield: hides what the program that unpacks must not see.

        Raises:
            RepositoryError: the layers cannot be read, or the target cannot be written, within the deadline.
            LayerError: a layer differs from its index.
            SpaceError: no space left at the target.
        """

    @abstractmethod
    def extract_paths(self, target: Path, paths: Collection[bytes], *, deadline: float, shield: Shield) -> None:
        """Unpack some paths and the directories above them, as :func:`publisher.build.sandbox.unpack.extract_paths` does."""

    @abstractmethod
    def check(self, tree: Path, changed: Collection[bytes] | None = None) -> tuple[str, str]:
        """Run a finished sandbox and compare it with the file index; return the record's ``test``, and why it was not run.

        Args:
            tree: the sandbox.
            changed: the paths to compare, for a clone; None for all.

        Raises:
            TestRunError: the image does not start.
            BuildError: the sandbox differs from the file index.
        """


@dataclass(frozen=True)
class BuiltImage:
    """A finished build and the facts about it that the manifest records.

    Attributes:
        sif: path of the SIF; there is none where only a sandbox is wanted, which is then made from ``source``.
        sha256: sha256 of the SIF, 64 hex digits; empty without one.
        size: size of the SIF in bytes; 0 without one.
        unpacked_size: bytes of all regular files.
        files: number of entries in the tree.
        file_index: path of the compressed file index (:mod:`publisher.fileindex.format`).
        test: ``ran``, or ``structure`` with the reason in ``notes`` (no shell, another architecture); empty without a SIF, until
            its sandbox was run.
        tools: name -> version of the programs that built it, and the compression; the same tools build the same image into the
            same bytes.
        notes: what the build dropped from the tree or changed in it, counted.
        config: digest of the image's config, which it was built from; None if that is not known.
        chunk_table: path of the SIF's chunk table (:mod:`publisher.contract.chunk_table`), None if there is none.
        chunks: ``sha256`` and ``size`` of the chunk table, None if there is none.
        source: what the sandbox is made from where there is no SIF, else None.
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
    source: SandboxSource | None = None

    def facts(self) -> dict[str, Any]:
        """Return the facts as a JSON object: everything but files, and what they are made from."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if name not in {"sif", "file_index", "chunk_table", "source"}}
