"""The steps from layers to the tar stream and to the squashfs, without Apptainer's metadata."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from publisher.build.sif import DATA_OFFSET, write_sif_header
from publisher.build.squash.programs import Mksquashfs
from publisher.build.squash.source import SquashSource
from publisher.layers.emit import Emitter, Output
from publisher.layers.flatten import flatten
from publisher.layers.survey import survey
from tests.support.images.layers import indexed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from publisher.build.builder import EarlierSif
    from publisher.build.squash.programs import Squasher
    from publisher.layers.emit import ExtraEntry, Write
    from publisher.layers.flatten_plan import FlattenPlan

NOW = 1_795_000_000
"""The time of the tests' builds, seconds since the epoch: after the layers' times, before this host's clock."""


def stream(layers: Sequence[bytes], where: Path) -> bytes:
    """Return the flattened tar stream of layers."""
    blobs, indexes = indexed(layers, where)
    plan = flatten(indexes).finish()
    out = io.BytesIO()
    emit(plan, blobs, indexes, survey(plan, indexes, NOW).newest, out.write)
    return out.getvalue()


def squashed(layers: Sequence[bytes], where: Path, made_by: Squasher | None = None) -> Path:
    """Return a SIF of the flattened layers; mksquashfs is the default squasher."""
    source = squash_source(layers, where)
    out = where / "squashed"
    (made_by or Mksquashfs()).squash(out, source, offset=DATA_OFFSET, deadline=60)
    write_sif_header(out, architecture="amd64", identity=bytes(16), epoch=source.totals.newest)
    return out


def squash_source(
    layers: Sequence[bytes],
    where: Path,
    *,
    extras: Sequence[ExtraEntry] = (),
    copies: Path | None = None,
    earlier: EarlierSif | None = None,
) -> SquashSource:
    """Return the flattened layers for a squasher; their file index will be ``files.zst``."""
    blobs, indexes = indexed(layers, where)
    plan = flatten(indexes).finish()
    return SquashSource(
        plan,
        survey(plan, indexes, NOW),
        extras,
        layers=blobs,
        indexes=indexes,
        copies=copies,
        file_index=where / "files.zst",
        progress=lambda _: None,
        earlier=earlier,
    )


def emit(  # noqa: PLR0917 - the parts of a stream
    plan: FlattenPlan,
    blobs: Sequence[Path],
    indexes: Sequence[Path],
    newest: int,
    write: Write,
    extras: Iterable[ExtraEntry] = (),
) -> None:
    """Write the whole stream of a plan."""
    emitter = Emitter(Output(write), newest)
    emitter.write_layers(plan, blobs, indexes, lambda _: None)
    emitter.write_directories(plan.implied_directories)
    for extra in extras:
        emitter.write_entry(extra)
    emitter.write_end()
