"""The engine from layers to the stream, without mksquashfs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from publisher.layers.emit import Emitter
from publisher.layers.files import FileIndexWriter
from publisher.layers.flatten import flatten
from publisher.layers.survey import survey
from tests.support.layers import indexed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NOW = 1_900_000_000


def stream(layers: Sequence[bytes], where: Path) -> bytes:
    """The flattened archive of layers."""
    blobs, indexes = indexed(layers, where)
    plan = flatten(indexes).finish()
    totals = survey(plan, indexes, NOW)
    out = io.BytesIO()
    files = FileIndexWriter(io.BytesIO())
    emitter = Emitter(out.write, files, totals.newest)
    emitter.layers(plan, blobs, lambda _: None)
    emitter.implied(plan.implied)
    emitter.end()
    files.close()
    return out.getvalue()
