"""``ci/bench``: figures about the publisher, measured on this machine."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from ci.benchmarks import build, fetching, hook, image, publishing, references, storing
from publisher.errors import PublisherError

_ROOT = Path(__file__).parents[2]
_WORK = _ROOT / "build" / "bench"


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
    building.set_defaults(run=_build)
    asking = commands.add_parser("references", help="a run without changes over thousands of references, far from the registry")
    asking.add_argument("--counts", type=int, nargs="+", default=[5_000, 50_000], help="how many (default 5000 and 50000)")
    asking.add_argument("--no-bars", dest="bars", action="store_false", help="print the figures, demand nothing of them")
    asking.add_argument("--work", type=Path, default=_WORK, help="directory for the registry's storage (build/bench)")
    asking.set_defaults(run=lambda given: references.benchmark(sorted(given.counts), given.work.resolve(), bars=given.bars))
    hooking = commands.add_parser("hook", help="the execution point's hook against an empty Python program")
    hooking.add_argument("-n", dest="rounds", type=int, default=40, help="rounds; medians are shown (default 40)")
    hooking.add_argument("--images", type=int, default=100_000, help="how many the manifest has (default 100000)")
    hooking.add_argument("--no-bars", dest="bars", action="store_false", help="print the figures, demand nothing of them")
    hooking.add_argument("--work", type=Path, default=_WORK, help="directory for the manifest and the cache (build/bench)")
    hooking.set_defaults(run=_hook)
    one = commands.add_parser("publish", help="one image into a repository of thousands against one of a few")
    one.add_argument("-n", dest="rounds", type=int, default=15, help="rounds; medians are shown (default 15)")
    one.add_argument("--images", type=int, default=2000, help="in the large repository (default 2000)")
    one.add_argument("--no-bars", dest="bars", action="store_false", help="print the figures, demand nothing of them")
    one.add_argument("--work", type=Path, default=_WORK, help="directory for both repositories (build/bench)")
    one.set_defaults(run=lambda given: publishing.benchmark(given.images, given.work.resolve(), given.rounds, bars=given.bars))
    fetch = commands.add_parser("fetch", help="a SIF from a real origin and a real cache to the disk against curl")
    fetch.add_argument("-n", dest="rounds", type=int, default=9, help="rounds; medians are shown (default 9)")
    fetch.add_argument("--size", type=int, default=400_000_000, help="of the SIF, in bytes (default 400000000)")
    fetch.add_argument("--no-bars", dest="bars", action="store_false", help="print the figures, demand nothing of them")
    fetch.add_argument("--work", type=Path, default=_WORK, help="directory for the downloads (build/bench)")
    fetch.set_defaults(run=lambda given: fetching.benchmark(given.size, given.rounds, given.work.resolve(), bars=given.bars))
    store = commands.add_parser("store", help="a SIF into a real origin, and read back from it, against curl")
    store.add_argument("-n", dest="rounds", type=int, default=5, help="rounds; medians are shown (default 5)")
    store.add_argument("--size", type=int, default=400_000_000, help="of the SIF, in bytes (default 400000000)")
    store.add_argument("--sparse", action="store_true", help="the SIF is all zeros: for one of many gigabytes")
    store.add_argument("--no-bars", dest="bars", action="store_false", help="print the figures, demand nothing of them")
    store.add_argument("--work", type=Path, default=_WORK, help="directory for the SIF (build/bench)")
    store.set_defaults(run=_store)
    given = parser.parse_args()
    if getattr(given, "rounds", 1) < 1:
        parser.error("-n: at least one round")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the registry and what is being measured end as well
    try:
        return 0 if given.run(given) else 1
    except PublisherError as error:
        print(f"ci/bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _build(given: argparse.Namespace) -> bool:
    bars = given.bars and given.size == "large"
    return not build.benchmark(image.SIZES[given.size], given.work.resolve(), given.rounds, bars=bars)


def _hook(given: argparse.Namespace) -> bool:
    return hook.benchmark(given.images, given.rounds, _ROOT, given.work.resolve() / "hook", bars=given.bars)


def _store(given: argparse.Namespace) -> bool:
    return storing.benchmark(given.size, given.rounds, given.work.resolve() / "store", bars=given.bars, sparse=given.sparse)


if __name__ == "__main__":
    sys.exit(main())
