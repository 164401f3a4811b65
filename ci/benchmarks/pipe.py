"""The limit: layers inflated into mksquashfs and nothing else. ``python -m ci.benchmarks.pipe OUT TOTALS LAYER…``.

TOTALS is what :func:`ci.benchmarks.ours.totals` gives, as JSON: so mksquashfs gets the very flags of a real build. Nothing is
planned, hashed or changed on the way; whiteouts are squashed as the files they are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from isal import igzip

from publisher.build.sif import DATA_OFFSET
from publisher.build.squash import Mksquashfs
from publisher.layers.survey import StreamSurvey

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 20
_BLOCK = 512


def main() -> None:
    """Squash layers one after the other."""
    out, told, *layers = sys.argv[1:]
    totals = json.loads(told)
    survey = StreamSurvey(totals["newest"], totals["unpacked_size"], tuple(totals["root"]))
    with Mksquashfs().squash(Path(out), survey, offset=DATA_OFFSET, deadline=1800) as write:
        for layer in layers:
            _inflate(Path(layer), write)
        write(bytes(2 * _BLOCK))


def _inflate(layer: Path, write: Callable[[bytes], object]) -> None:
    """One layer without the zeros at its end, which would end the whole stream."""
    held = b""
    with igzip.IGzipFile(layer, "rb") as stream:  # type: ignore[no-untyped-call]  # isal's own lack
        while chunk := stream.read(_CHUNK):
            whole = held + chunk
            kept = len(whole.rstrip(b"\0"))
            kept = -(-kept // _BLOCK) * _BLOCK
            write(whole[:kept])
            held = whole[kept:]


if __name__ == "__main__":
    main()
