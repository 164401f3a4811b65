"""``ci/bench``: benchmarks of the publisher and of the execution point's hook on this machine."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from ci.benchmarks import (
    bench_image,
    build,
    cvmfs,
    cvmfs_images,
    delta,
    fetch,
    hook,
    large_delta,
    levels,
    many,
    publish,
    references,
    store,
    units,
)
from publisher.errors import PublisherError

_ROOT = Path(__file__).parents[2]
_WORK = _ROOT / "build" / "bench"


def main() -> int:
    """Run a benchmark; return 0 if all bars were met, 1 if one was missed or something failed."""
    parser = _parser()
    arguments = parser.parse_args()
    if getattr(arguments, "rounds", 1) < 1:
        parser.error("-n must be at least 1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the registry and the measured program, too
    try:
        return 0 if arguments.run(arguments) else 1
    except PublisherError as error:
        print(f"ci/bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ci/bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    parsers = {
        name: commands.add_parser(name, help=text)
        for name, text in {
            "build": "registry -> SIF, against apptainer build and against the bare pipe",
            "many": "images of mixed sizes on all cores, against one after the other and against apptainer build",
            "references": "a run without changes over thousands of references, with a distant registry",
            "hook": "the execution point's hook, against an empty Python program",
            "publish": "one image into a repository of thousands, against one of a few",
            "fetch": "download of a SIF from a real origin and a real cache, against curl",
            "delta": "SIFs as differences of others, against whole ones, near and over a distant link",
            "levels": "SIFs at four levels of zstd: build, size, start, and what two versions share",
            "units": "what images share: chunks of SIFs, blocks of squashfs, files of layers",
            "cvmfs": "a whole image and a small change on a real cvmfs_server, against the tool by hand and against ducc",
            "store": "upload of a SIF into a real origin, and its readback, against curl",
        }.items()
    }
    parsers["build"].add_argument("-n", dest="rounds", type=int, default=3, help="rounds; medians are shown (default 3)")
    parsers["build"].add_argument(
        "--size",
        choices=bench_image.SIZES,
        default="large",
        help="size of the image; no bar applies to small (default large)",
    )
    parsers["build"].set_defaults(run=_build)
    parsers["many"].add_argument("--images", type=int, default=40, help="number of images (default 40)")
    parsers["many"].add_argument(
        "--apptainer", type=int, default=40, help="number of images that apptainer builds; 0 leaves it out (default 40)"
    )
    parsers["many"].add_argument(
        "--median", type=float, default=15.0, help="median size of an image's own layer, MB (default 15)"
    )
    parsers["many"].set_defaults(run=_many)
    parsers["references"].add_argument(
        "--counts", type=int, nargs="+", default=[5_000, 50_000], help="numbers of references (default 5000 and 50000)"
    )
    parsers["references"].set_defaults(run=_references)
    parsers["hook"].add_argument("-n", dest="rounds", type=int, default=40, help="rounds; medians are shown (default 40)")
    parsers["hook"].add_argument("--images", type=int, default=100_000, help="images in the manifest (default 100000)")
    parsers["hook"].set_defaults(run=_hook)
    parsers["publish"].add_argument("-n", dest="rounds", type=int, default=15, help="rounds; medians are shown (default 15)")
    parsers["publish"].add_argument("--images", type=int, default=2000, help="images in the large repository (default 2000)")
    parsers["publish"].set_defaults(run=_publish)
    parsers["fetch"].add_argument("-n", dest="rounds", type=int, default=9, help="rounds; medians are shown (default 9)")
    parsers["fetch"].add_argument("--size", type=int, default=400_000_000, help="size of the SIF in bytes (default 400000000)")
    parsers["fetch"].set_defaults(run=_fetch)
    parsers["delta"].add_argument("-n", dest="rounds", type=int, default=3, help="rounds; medians are shown (default 3)")
    parsers["delta"].add_argument("--size", type=int, help="bytes of the files of an image (default 675000000)")
    parsers["delta"].add_argument(
        "--large", action="store_true", help="instead: a SIF of 5 GB, or of --size bytes, and hundreds of SIFs in the cache"
    )
    parsers["delta"].add_argument("--only", default="", metavar="TEXT", help="the families that have this in their names")
    parsers["delta"].add_argument("--near", dest="distant", action="store_false", help="leave out the distant link")
    parsers["delta"].set_defaults(run=_delta)
    parsers["levels"].add_argument("-n", dest="rounds", type=int, default=5, help="starts; medians are shown (default 5)")
    parsers["levels"].add_argument("--size", type=int, default=100_000_000, help="bytes of an image's files (default 100000000)")
    parsers["levels"].set_defaults(run=_levels)
    parsers["units"].add_argument("--size", type=int, default=675_000_000, help="bytes of an image's files (default 675000000)")
    parsers["units"].set_defaults(run=_units)
    parsers["store"].add_argument("-n", dest="rounds", type=int, default=5, help="rounds; medians are shown (default 5)")
    parsers["store"].add_argument("--size", type=int, default=400_000_000, help="size of the SIF in bytes (default 400000000)")
    parsers["store"].add_argument("--sparse", action="store_true", help="use a SIF of zeros, for sizes of many gigabytes")
    parsers["store"].set_defaults(run=_store)
    parsers["cvmfs"].add_argument("--repository", help="a new repository of this host")
    parsers["cvmfs"].add_argument("--ducc", help="the program cvmfs_ducc, to compare with (default: it is left out)")
    parsers["cvmfs"].add_argument(
        "--image",
        choices=cvmfs_images.KINDS,
        default="debian",
        help="files of Debian's packages, or 60,000 files of 6 kB each (default debian)",
    )
    parsers["cvmfs"].add_argument("--only", nargs="+", choices=cvmfs.WHO, default=[], help="measure these alone (default all)")
    parsers["cvmfs"].add_argument("--pause", type=float, default=370.0, help="seconds between two of them (default 370)")
    parsers["cvmfs"].set_defaults(run=_cvmfs)
    for command in parsers.values():
        command.add_argument("--no-bars", dest="bars", action="store_false", help="print the figures without checking the bars")
        command.add_argument("--work", type=Path, default=_WORK, help="directory for all files (default build/bench)")
    return parser


def _build(arguments: argparse.Namespace) -> bool:
    bars = arguments.bars and arguments.size == "large"
    size = bench_image.SIZES[arguments.size]
    return not build.benchmark(size, arguments.work.resolve(), arguments.rounds, bars=bars)


def _many(arguments: argparse.Namespace) -> bool:
    work = arguments.work.resolve() / "many"
    return many.benchmark(arguments.images, arguments.median * 1e6, work, apptainer=arguments.apptainer, bars=arguments.bars)


def _references(arguments: argparse.Namespace) -> bool:
    return references.benchmark(sorted(arguments.counts), arguments.work.resolve(), bars=arguments.bars)


def _hook(arguments: argparse.Namespace) -> bool:
    work = arguments.work.resolve() / "hook"
    return hook.benchmark(arguments.images, arguments.rounds, _ROOT, work, bars=arguments.bars)


def _publish(arguments: argparse.Namespace) -> bool:
    return publish.benchmark(arguments.images, arguments.work.resolve(), arguments.rounds, bars=arguments.bars)


def _fetch(arguments: argparse.Namespace) -> bool:
    return fetch.benchmark(arguments.size, arguments.rounds, arguments.work.resolve(), bars=arguments.bars)


def _delta(arguments: argparse.Namespace) -> bool:
    work = arguments.work.resolve() / "delta"
    if arguments.large:
        return large_delta.benchmark(arguments.size or 5_000_000_000, work, delta.HASH, bars=arguments.bars)
    options = {"only": arguments.only, "distant": arguments.distant, "bars": arguments.bars}
    return delta.benchmark(arguments.size or 675_000_000, arguments.rounds, work, **options)


def _levels(arguments: argparse.Namespace) -> bool:
    levels.benchmark(arguments.size, arguments.rounds, arguments.work.resolve() / "levels")
    return True


def _units(arguments: argparse.Namespace) -> bool:
    units.benchmark(arguments.size, arguments.work.resolve() / "units")
    return True


def _store(arguments: argparse.Namespace) -> bool:
    work = arguments.work.resolve() / "store"
    return store.benchmark(arguments.size, arguments.rounds, work, bars=arguments.bars, sparse=arguments.sparse)


def _cvmfs(arguments: argparse.Namespace) -> bool:
    work = arguments.work.resolve() / "cvmfs"
    options = {"image": arguments.image, "only": arguments.only, "pause": arguments.pause, "bars": arguments.bars}
    return cvmfs.benchmark(arguments.repository, arguments.ducc, work, **options)


if __name__ == "__main__":
    sys.exit(main())
