"""The steps from layers to the tar stream and to the squashfs, without Apptainer's metadata."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from publisher.build.sif import DATA_OFFSET, write_sif_header
from publisher.build.squash import Mksquashfs
from publisher.layers.emit import Emitter, Output
from publisher.layers.flatten import flatten
from publisher.layers.survey import survey
from tests.support.images.layers import indexed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from publisher.build.squash import Squasher
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
    blobs, indexes = indexed(layers, where)
    plan = flatten(indexes).finish()
    totals = survey(plan, indexes, NOW)
    out = where / "squashed"
    with (made_by or Mksquashfs()).squash(out, totals, offset=DATA_OFFSET, deadline=60) as squashing:
        emit(plan, blobs, indexes, totals.newest, squashing.write)
    write_sif_header(out, architecture="amd64", identity=bytes(16), epoch=totals.newest)
    return out


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
