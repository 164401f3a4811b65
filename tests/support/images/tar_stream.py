"""The steps from layers to the tar stream and to the squashfs, without Apptainer's metadata."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from publisher.build.sif import DATA_OFFSET
from publisher.build.squash import Mksquashfs
from publisher.fileindex.format import FileIndexWriter
from publisher.layers.emit import Emitter
from publisher.layers.flatten import flatten
from publisher.layers.survey import survey
from tests.support.images.layers import indexed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from publisher.build.squash import Squasher
    from publisher.layers.emit import Write
    from publisher.layers.flatten_plan import FlattenPlan

NOW = 1_795_000_000
"""The time of the tests' builds, seconds since the epoch: after the layers' times, before this host's clock."""


def stream(layers: Sequence[bytes], where: Path) -> bytes:
    """Return the flattened tar stream of layers."""
    blobs, indexes = indexed(layers, where)
    plan = flatten(indexes).finish()
    out = io.BytesIO()
    _emit(plan, blobs, survey(plan, indexes, NOW).newest, out.write)
    return out.getvalue()


def squashed(layers: Sequence[bytes], where: Path, made_by: Squasher | None = None) -> Path:
    """Return a file with the flattened layers as a squashfs at a SIF's offset; mksquashfs is the default squasher."""
    blobs, indexes = indexed(layers, where)
    plan = flatten(indexes).finish()
    totals = survey(plan, indexes, NOW)
    out = where / "squashed"
    with (made_by or Mksquashfs()).squash(out, totals, offset=DATA_OFFSET, deadline=60) as write:
        _emit(plan, blobs, totals.newest, write)
    return out


def _emit(plan: FlattenPlan, blobs: Sequence[Path], newest: int, write: Write) -> None:
    files = FileIndexWriter(io.BytesIO())
    emitter = Emitter(write, files, newest)
    emitter.write_layers(plan, blobs, lambda _: None)
    emitter.write_directories(plan.implied_directories)
    emitter.write_end()
    files.close()
