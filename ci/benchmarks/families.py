"""Families of SIFs for the benchmark of differences, made from this machine's own programs and libraries.

Each image is one tar stream in the order of its layers, as the publisher makes it, and becomes a SIF by the publisher's
mksquashfs. The layers are like those of an image for data analysis: a base, a large middle layer of which packages change, a
layer above it, and a small one of the user.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from publisher.build.sif import DATA_OFFSET, write_sif_header
from publisher.build.squash.programs import Mksquashfs
from publisher.chunks.cutter import ChunkCutter
from publisher.contract.records import Chunks, Sif
from publisher.layers.survey import StreamSurvey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EPOCH = 1_700_000_000
_PLACES = ("/usr/lib", "/usr/share", "/usr/bin", "/usr/sbin", "/usr/include")
_MAX_FILE = 30_000_000  # bytes
_MIDDLE_SHARE, _UPPER_SHARE = 0.35, 0.15  # of the bytes of an image
_BUMPED = 0.4  # of the middle layer: packages of which a new release came
_CHANGED_LIBRARIES = 20
_SMALLEST_LIBRARY, _LARGEST_LIBRARY = 20_000, 200_000  # bytes
_DEADLINE = 1800.0  # seconds
_PIECE = 1 << 20


@dataclass(frozen=True)
class File:
    """A file of an image: its path there, where its content is, and how the content was changed (empty: not at all)."""

    name: str
    origin: Path
    changed: str = ""
    mtime: int = EPOCH

    def content(self) -> bytes:
        """Return the content; a change is as compressible as what was there, and shares nothing with it."""
        content = self.origin.read_bytes()
        return content if not self.changed else content.translate(_permutation(self.changed))


@dataclass(frozen=True)
class Family:
    """Two images, and how many times fewer bytes and how many times less time than the whole the second one needs.

    Attributes:
        name: what differs.
        given, wanted: files of the images.
        bytes_bar: at least how many times fewer bytes; None for no bar.
        time_bar: at least how many times faster over the distant link; None for an image that shares nothing.
    """

    name: str
    given: list[File]
    wanted: list[File]
    bytes_bar: float | None
    time_bar: float | None


def families(size: int) -> list[Family]:
    """Return the families, of images with ``size`` bytes of files."""
    available = files()
    base = _take(available, int(size * (1 - _MIDDLE_SHARE - _UPPER_SHARE)))
    middle, upper = _take(available, int(size * _MIDDLE_SHARE)), _take(available, int(size * _UPPER_SHARE))
    other = _take(available, int(size * _UPPER_SHARE))
    mine = [File("opt/own/analysis.py", Path(__file__))]
    image = [*base, *middle, *upper, *mine]
    unrelated = [File(f"other/{file.name}", file.origin, "unrelated", EPOCH + 7) for file in image]
    rebuilt = _rebuilt(base)
    return [
        Family("user's layer changed", image, [*base, *middle, *upper, *_changed(mine, "new")], 50, 10),
        Family("middle layer bumped", image, [*base, *_bumped(middle), *upper, *mine], 4, 3),
        Family("base rebuilt", image, [*rebuilt, *middle, *upper, *mine], 50, 10),
        Family("another project on the same base", image, [*base, *middle, *other, *_changed(mine, "other")], 4, 3),
        Family("nothing shared", unrelated, image, None, None),
    ]


def make(contents: list[File], where: Path, level: int = 3) -> tuple[Sif, Chunks, bytes]:
    """Make the SIF of an image at ``where``; return its record, that of its chunk table, and the content of the table."""
    totals = StreamSurvey(newest=EPOCH, unpacked_size=0, root=(0o755, 0, 0))
    with Mksquashfs(level=level).stream(where, totals, offset=DATA_OFFSET, deadline=_DEADLINE) as squashing:
        _write_stream(contents, squashing.write)
    write_sif_header(where, architecture="amd64", identity=bytes(16), epoch=EPOCH)
    cutter, digest = ChunkCutter(), hashlib.sha256()
    with where.open("rb") as file:
        while piece := file.read(_PIECE):
            cutter.update(piece)
            digest.update(piece)
    sha256 = digest.hexdigest()
    table = cutter.finish(sha256) or b""
    chunks = Chunks(hashlib.sha256(table).hexdigest(), len(table))
    return Sif(f"sif/{sha256[:2]}/{sha256}.sif", sha256, where.stat().st_size, chunks), chunks, table


def _write_stream(files: list[File], write: Callable[[bytes], object]) -> None:
    class Out:
        def write(self, data: bytes) -> int:
            write(data)
            return len(data)

    with tarfile.open(fileobj=cast("IO[bytes]", Out()), mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            entry = tarfile.TarInfo(file.name)
            content = file.content()
            entry.size, entry.mtime, entry.mode = len(content), file.mtime, 0o755
            archive.addfile(entry, io.BytesIO(content))


def files() -> Iterator[File]:
    """Yield this machine's files, package by package."""
    seen = set()
    for place in _PLACES:
        for path in sorted(Path(place).rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < _MAX_FILE and path.stat().st_ino not in seen:
                seen.add(path.stat().st_ino)
                yield File(str(path).lstrip("/"), path)


def _take(files: Iterator[File], size: int) -> list[File]:
    taken, count = [], 0
    while count < size:
        file = next(files)
        taken.append(file)
        count += file.origin.stat().st_size
    return taken


def _changed(files: list[File], how: str) -> list[File]:
    return [File(file.name, file.origin, how, EPOCH + 1000) for file in files]


def _bumped(files: list[File]) -> list[File]:
    """Change the first files of a layer, up to :data:`_BUMPED` of its bytes: all files of some packages."""
    rest = iter(files)
    bumped = _changed(_take(rest, int(_BUMPED * sum(file.origin.stat().st_size for file in files))), "new release")
    return [*bumped, *rest]


def _rebuilt(files: list[File]) -> list[File]:
    """Give all files of a layer other times, and change some libraries of usual size."""
    usual = [file.name for file in files if _SMALLEST_LIBRARY < file.origin.stat().st_size < _LARGEST_LIBRARY]
    changed = set(usual[:: max(1, len(usual) // _CHANGED_LIBRARIES)][:_CHANGED_LIBRARIES])
    return [File(file.name, file.origin, "fixed" if file.name in changed else "", EPOCH + 2000) for file in files]


def _permutation(seed: str) -> bytes:
    return bytes(sorted(range(256), key=lambda byte: hashlib.sha256(f"{seed} {byte}".encode()).digest()))
