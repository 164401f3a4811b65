"""``ci/bench``: figures about the publisher, measured on this machine."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from ci.benchmarks import build, image
from publisher.errors import PublisherError

_WORK = Path(__file__).parents[2] / "build" / "bench"


def main() -> int:
    """0: all bars held; 1: one was missed, or something failed."""
    parser = argparse.ArgumentParser(prog="ci/bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    building = commands.add_parser("build", help="registry -> SIF against apptainer build and against the bare pipe")
    building.add_argument("-n", dest="rounds", type=int, default=3, help="rounds; medians are shown (default 3)")
    building.add_argument(
        "--size",
        choices=image.SIZES,
        default="large",
        help="which image; for small no bar holds",
    )
    building.add_argument("--no-bars", dest="bars", action="store_false", help="print the figures, demand nothing of them")
    building.add_argument("--work", type=Path, default=_WORK, help="directory for the image and everything else (build/bench)")
    given = parser.parse_args()
    if given.rounds < 1:
        building.error("-n: at least one round")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the registry and what is being measured end as well
    try:
        bars = given.bars and given.size == "large"
        return 1 if build.benchmark(image.SIZES[given.size], given.work.resolve(), given.rounds, bars=bars) else 0
    except PublisherError as error:
        print(f"ci/bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
