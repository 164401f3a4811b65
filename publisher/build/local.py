"""Builds on this host: layers -> one tar stream -> squashfs with the SIF header in place -> test run.

Nothing is unpacked on the way and each layer is inflated once. A finished build is kept in the work directory, with what
the record says of it, until the caller lets it go: a run that is killed afterwards costs no second build.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from publisher import __version__
from publisher.build import readback
from publisher.build.builder import Builder, BuildRequest
from publisher.build.metadata import make_skeleton, place
from publisher.build.readback import ReadbackError
from publisher.build.sif import DATA_OFFSET, write_sif_header
from publisher.errors import BuildError, LayerError, PublisherError, SpaceError
from publisher.fileindex.format import FileIndexWriter
from publisher.layers.emit import Emitter
from publisher.layers.flatten import flatten
from publisher.layers.index import read_summary
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.layers.survey import survey
from publisher.state.built import BuiltImage
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from publisher.build.squash import Squasher
    from publisher.build.testrun import TestRunner
    from publisher.layers.emit import ExtraEntry
    from publisher.layers.flatten_plan import FlattenPlan
    from publisher.layers.survey import StreamSurvey

    Progress = Callable[[str, int, int], None]

_SIF, _FILES, _RECORD = "image.sif", "files.zst", "built.json"
_TRIES = 3  # for a SIF that gives back what was put in
_FORMAT = 1  # of _RECORD; a build recorded by another version is made anew
_FREE = 64 << 20  # bytes that must stay free on the device
_GROWTH = 1.5  # of the layers' compressed bytes, as a squashfs: it compresses each block of 128 KiB for itself
_PER_ENTRY = 128  # bytes in the squashfs' tables and in the file index


class LocalBuilder(Builder):
    """Makes SIFs in ``work``.

    Args:
        work: directory for finished builds, one below it per manifest digest; made when missing.
        squasher: makes the squashfs.
        tester: runs the finished SIF.
        limits: what one image may ask for.
        deadline: seconds that planning and squashing one image may take.
        now: seconds since the epoch; later times in layers are taken for mistakes.
        clock: seconds, monotonic.
        free: bytes that are free on a directory's device.
    """

    def __init__(
        self,
        work: Path,
        squasher: Squasher,
        tester: TestRunner,
        *,
        limits: LayerLimits = DEFAULT_LIMITS,
        deadline: float = 4 * 3600,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        free: Callable[[Path], int] = lambda place: shutil.disk_usage(place).free,
    ) -> None:
        self._work = work
        self._squasher = squasher
        self._tester = tester
        self._limits = limits
        self._deadline = deadline
        self._now = now
        self._clock = clock
        self._free = free
        self._tools = {"publisher": __version__, "apptainer": _apptainer_version(), squasher.name: squasher.version}
        self._tools["compression"] = squasher.compression

    def build(self, request: BuildRequest, progress: Progress) -> BuiltImage:
        """See :meth:`Builder.build`."""
        place_of_build = self._directory(request)
        finished = _load(place_of_build)
        if finished is not None:
            return finished
        shutil.rmtree(place_of_build, ignore_errors=True)
        try:
            place_of_build.mkdir(parents=True)
            return self._build(request, place_of_build, progress)
        except OSError as error:
            shutil.rmtree(place_of_build, ignore_errors=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpaceError("no room left for the SIF", image=request.name, hint="free space in --state") from error
            raise
        except PublisherError as error:
            shutil.rmtree(place_of_build, ignore_errors=True)
            error.image = request.name
            raise

    def discard(self, request: BuildRequest) -> None:
        """Let go of a finished build: it has been published."""
        shutil.rmtree(self._directory(request), ignore_errors=True)

    def sweep(self, wanted: Collection[str]) -> None:
        """See :meth:`Builder.sweep`."""
        kept = {digest.removeprefix("sha256:") for digest in wanted}
        for left in self._work.iterdir() if self._work.is_dir() else ():
            if left.name not in kept:
                shutil.rmtree(left, ignore_errors=True)

    def _directory(self, request: BuildRequest) -> Path:
        return self._work / request.image.manifest.digest.removeprefix("sha256:")

    def _build(self, request: BuildRequest, where: Path, progress: Progress) -> BuiltImage:
        _check_diff_ids(request)
        progress("plan", 0, 1)
        ends = self._clock() + self._deadline
        prepared = self._prepare(request, where, ends)
        self._check_room(request, prepared, where)
        sif, file_index = where / _SIF, where / _FILES
        files = self._squash_well(request, prepared, where, ends, progress)
        architecture = request.image.platform.architecture
        progress("test", 0, 1)
        outcome = self._tester.test(sif, architecture=architecture, has_shell=prepared.has_shell)
        built = BuiltImage(
            sif=sif,
            sha256=_sha256(sif),
            size=sif.stat().st_size,
            unpacked_size=files.unpacked_size,
            files=files.files,
            file_index=file_index,
            test=outcome.test,
            tools=self._tools,
            notes={**prepared.plan.dropped, **({"test": outcome.reason} if outcome.reason else {})},
        )
        _save(built, where)
        return built

    def _prepare(self, request: BuildRequest, scratch: Path, ends: float) -> _Prepared:
        def in_time() -> None:
            if self._clock() >= ends:
                raise BuildError(f"planning the image did not end within {self._deadline:g} s")

        tree = flatten(request.indexes, self._limits, in_time)
        has_shell = tree.lookup(b"bin/sh") == "file"
        extras = place(tree, make_skeleton(request.image, scratch))
        plan = tree.finish()
        return _Prepared(plan, survey(plan, request.indexes, int(self._now()), self._limits), extras, has_shell)

    def _check_room(self, request: BuildRequest, prepared: _Prepared, where: Path) -> None:
        """Before anything is written: what the SIF will take at most, as far as sizes tell."""
        compressed = sum(layer.stat().st_size for layer in set(request.layers))
        content = min(prepared.totals.unpacked_size, int(_GROWTH * compressed))
        needed = self._squasher.copies * (content + _PER_ENTRY * prepared.plan.entry_count) + _FREE
        free = self._free(where)
        if free < needed:
            reason = f"no room for the SIF: it may take {needed - _FREE} bytes, and {free} bytes are free in {self._work}"
            raise SpaceError(reason, hint="free space there and run again")

    def _squash_well(
        self, request: BuildRequest, prepared: _Prepared, where: Path, ends: float, progress: Progress
    ) -> FileIndexWriter:
        """The SIF, read back; made again where it is not what was put in, since that is a race within the squasher."""
        for _ in range(_TRIES - 1):
            try:
                return self._squash_and_check(request, prepared, where, ends, progress)
            except ReadbackError:
                (where / _SIF).unlink()
        return self._squash_and_check(request, prepared, where, ends, progress)

    def _squash_and_check(
        self, request: BuildRequest, prepared: _Prepared, where: Path, ends: float, progress: Progress
    ) -> FileIndexWriter:
        files = self._squash(request, prepared, where, ends, progress)
        architecture = request.image.platform.architecture
        identity = bytes.fromhex(request.image.manifest.digest.removeprefix("sha256:"))
        write_sif_header(where / _SIF, architecture=architecture, identity=identity, epoch=prepared.totals.newest)
        progress("read back", 0, 1)
        readback.check(where / _SIF, where / _FILES, deadline=max(1.0, ends - self._clock()))
        return files

    def _squash(
        self, request: BuildRequest, prepared: _Prepared, where: Path, ends: float, progress: Progress
    ) -> FileIndexWriter:
        deadline = math.ceil(max(0.0, ends - self._clock()))
        total = sum(layer.stat().st_size for layer in request.layers)
        done = 0

        def advanced(count: int) -> None:
            nonlocal done
            done += count
            progress("squash", done, total)

        totals = prepared.totals
        with (
            (where / _FILES).open("wb") as out,
            self._squasher.squash(where / _SIF, totals, offset=DATA_OFFSET, deadline=deadline) as write,
        ):
            files = FileIndexWriter(out)
            emitter = Emitter(write, files, totals.newest)
            emitter.write_layers(prepared.plan, request.layers, advanced)
            emitter.write_directories(prepared.plan.implied_directories)
            for extra in prepared.extras:
                emitter.write_entry(extra)
            emitter.write_end()
            files.close()
        return files


@dataclass(frozen=True)
class _Prepared:
    """All that is known before a byte is squashed."""

    plan: FlattenPlan
    totals: StreamSurvey
    extras: list[ExtraEntry]
    has_shell: bool


def _check_diff_ids(request: BuildRequest) -> None:
    """The layers must unpack to what the config says (OCI image specification, config.md: ``rootfs.diff_ids``)."""
    wanted = request.image.config.diff_ids
    if len(wanted) != len(request.indexes):
        raise LayerError(f"the image has {len(request.indexes)} layers, its config describes {len(wanted)}")
    for number, (path, diff_id) in enumerate(zip(request.indexes, wanted, strict=True), 1):
        summary = read_summary(path)
        if summary is None:
            raise BuildError(f"layer {number} has no header index", hint="run the command again: it is made while fetching")
        if summary.diff_id != diff_id:
            raise LayerError(f"layer {number} unpacks to {summary.diff_id}, its config says {diff_id}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save(built: BuiltImage, where: Path) -> None:
    for path in (built.sif, built.file_index):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    described = asdict(built) | {"sif": built.sif.name, "file_index": built.file_index.name, "format": _FORMAT}
    temporary = where / f".{_RECORD}"
    temporary.write_text(json.dumps(described))
    temporary.rename(where / _RECORD)


def _load(where: Path) -> BuiltImage | None:
    """A finished build whose SIF is still what it was, None otherwise."""
    try:
        described = json.loads((where / _RECORD).read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if described.pop("format", None) != _FORMAT:
        return None
    built = BuiltImage(**described | {"sif": where / described["sif"], "file_index": where / described["file_index"]})
    if not built.sif.is_file() or not built.file_index.is_file() or _sha256(built.sif) != built.sha256:
        return None
    return built


def _apptainer_version() -> str:
    said = command.run(["apptainer", "--version"], deadline=60).stdout.decode("utf-8", "replace").split()
    return said[-1] if said else "unknown"
