"""The lower bound of a build: layers decompressed into mksquashfs. ``python -m ci.benchmarks.bare_pipe OUT TOTALS LAYER…``.

TOTALS is the JSON of :func:`ci.benchmarks.publisher_build.totals`, so that mksquashfs gets the options of a real build. Nothing
is planned, hashed or changed on the way; whiteouts are squashed as ordinary files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from isal import igzip

from publisher.build.sif import DATA_OFFSET
from publisher.build.squash.programs import Mksquashfs
from publisher.layers.survey import StreamSurvey

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 20
_BLOCK = 512


def main() -> None:
    """Squash the layers in sequence."""
    out, totals_json, *layers = sys.argv[1:]
    totals = json.loads(totals_json)
    survey = StreamSurvey(totals["newest"], totals["unpacked_size"], tuple(totals["root"]))
    with Mksquashfs().stream(Path(out), survey, offset=DATA_OFFSET, deadline=1800) as squashing:
        for layer in layers:
            _inflate(Path(layer), squashing.write)
        squashing.write(bytes(2 * _BLOCK))


def _inflate(layer: Path, write: Callable[[bytes], object]) -> None:
    """Write one layer without the zeros at its end, which would end the stream."""
    pending = b""
    with igzip.IGzipFile(layer, "rb") as stream:  # type: ignore[no-untyped-call]  # isal has no types
        while chunk := stream.read(_CHUNK):
            data = pending + chunk
            end = len(data.rstrip(b"\0"))
            end = -(-end // _BLOCK) * _BLOCK
            write(data[:end])
            pending = data[end:]


if __name__ == "__main__":
    main()
