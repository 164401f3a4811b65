"""Builds on this host: layers -> one tar stream -> squashfs behind a SIF header -> readback -> test run.

Where no SIF is wanted, only the file index is made; the sandbox comes from the layers later
(:mod:`publisher.build.sandbox.layered`).

Nothing is unpacked. Layers are read from their uncompressed copies where there are any
(:mod:`publisher.layers.stream.uncompressed`). A finished build is kept in the work directory, with the values for its
record, until the caller discards it, so that a run that is killed later need not build it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from publisher import __version__
from publisher.build import finished_build, readback
from publisher.build.builder import Builder, BuildRequest, UncheckedSif
from publisher.build.finished_build import FILE_INDEX, SIF, TABLE
from publisher.build.metadata import add_skeleton, make_skeleton
from publisher.build.readback import ReadbackError
from publisher.build.received import receive
from publisher.build.sandbox.layered import LayeredSandbox
from publisher.build.sif import DATA_OFFSET, write_sif_header
from publisher.build.squash.source import Listed, SquashSource
from publisher.build.toolset import check_accepted, tool_versions
from publisher.chunks.cutter import cut_file
from publisher.contract.units import format_size
from publisher.errors import BuildError, LayerError, PublisherError, SpaceError, TestRunError
from publisher.fileindex.format import FileIndexWriter
from publisher.layers.flatten import flatten
from publisher.layers.index import read_summary
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.layers.listing import write_listing
from publisher.layers.stream.uncompressed import delete_copies
from publisher.layers.survey import survey
from publisher.sifs.listing import SifFiles
from publisher.state.built import BuiltImage
from publisher.system.durable import host_failure
from publisher.system.progress import READ_BACK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from publisher.build.metadata import MetadataSkeleton
    from publisher.build.squash.programs import Squasher
    from publisher.build.testrun import TestRunner
    from publisher.layers.emit import ExtraEntry
    from publisher.layers.flatten_plan import FlattenPlan
    from publisher.layers.survey import StreamSurvey
    from publisher.system.command import UnixAccount

    Progress = Callable[[str, int, int], None]
    Tools = Mapping[str, str]
    CutSif = tuple[str, bytes | None]  # as publisher.chunks.cutter.cut_file returns it, before the image's code runs

_log = logging.getLogger(__name__)

_SANDBOX_ONLY = ".sandbox"
"""Ends the name of a build without a SIF, which another entry may want of the same image."""
_MAX_TRIES = 3  # of squashing, until the SIF reads back as it should
_FREE = 64 << 20  # bytes that must stay free on the device
_GROWTH = 1.5  # a squashfs per compressed byte of the layers, at most: each block of 128 KiB is compressed by itself
_BYTES_PER_ENTRY = 128  # in the tables of the squashfs and in the file index


def free_space(directory: Path) -> int:
    """Return the free bytes on a directory's device. Raises OSError."""
    return shutil.disk_usage(directory).free


class LocalBuilder(Builder):
    """A builder that makes SIFs in a directory of this host, one at a time. It can be pickled for another process.

    Args:
        work: directory for finished builds, with one directory per config digest; created if it is missing.
        squasher: makes the squashfs.
        tester: runs the finished SIF.
        account: the account that Apptainer, and unsquashfs for a SIF of the list, run as (needs root), None for this process's.
        scratch: an existing directory for temporary files that the account can enter, None for the work directory.
        limits: limits of one image.
        deadline: seconds that planning and squashing one image may take.
        now: returns seconds since the epoch; later times in layers are treated as mistakes.
        clock: returns monotonic seconds.
        free: returns the free bytes on a directory's device.
        accepted: pairs of program and version that images may be built with, see :func:`publisher.build.toolset.check_accepted`.

    Raises:
        UsageError: a program of this host has a version that is not accepted.
    """

    def __init__(
        self,
        work: Path,
        squasher: Squasher,
        tester: TestRunner,
        *,
        account: UnixAccount | None = None,
        scratch: Path | None = None,
        limits: LayerLimits = DEFAULT_LIMITS,
        deadline: float = 4 * 3600,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        free: Callable[[Path], int] = free_space,
        accepted: Collection[tuple[str, str]] = (),
    ) -> None:
        self._work = work
        self._squasher = squasher
        self._tester = tester
        self._account = account
        self._scratch = scratch
        self._limits = limits
        self._deadline = deadline
        self._now = now
        self._clock = clock
        self._free = free
        self._tools = tool_versions(squasher)
        check_accepted(self._tools, accepted)

    def build(self, request: BuildRequest, progress: Progress) -> BuiltImage:
        """Build one image as :meth:`Builder.build` describes; a failed build leaves nothing."""
        make = self._build if request.sif else self._list
        return self._make(request, lambda directory: make(request, directory, progress))

    def finished(self, request: BuildRequest) -> BuiltImage | None:
        """Return the finished build of a request, None if there is none."""
        return finished_build.load(self._directory(request), request.image.content)

    def unchecked(self, request: BuildRequest) -> UncheckedSif | None:
        """See :meth:`Builder.unchecked`. A SIF of the list is a stranger's until it was checked."""
        if request.image.is_sif or not request.sif:
            return None
        summaries = filter(None, map(read_summary, request.indexes))
        with contextlib.suppress(FileNotFoundError):  # it was not sound, and is made again
            return UncheckedSif.at(self._directory(request) / SIF, sum(summary.unpacked for summary in summaries))
        return None

    def import_build(self, request: BuildRequest, make: Callable[[Path], BuiltImage]) -> BuiltImage:
        """Keep a build that was made elsewhere as a finished build.

        Args:
            request: what was built.
            make: puts the SIF and the file index into a directory under their names here, and returns the build.

        Raises:
            PublisherError: as ``make``; nothing is left.
        """

        def imported(directory: Path) -> BuiltImage:
            built = make(directory)
            finished_build.save(built, directory, request.image.content)
            return built

        return self._make(request, imported)

    def _make(self, request: BuildRequest, make: Callable[[Path], BuiltImage]) -> BuiltImage:
        directory = self._directory(request)
        try:
            finished = finished_build.load(directory, request.image.content)
            if finished is not None:
                _log.debug("%s: the finished build in %s is used", request.name, directory)
                return finished
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o755, parents=True)
            return make(directory)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            failure = host_failure(error)
            if failure is None:
                raise
            failure.image = request.name
            raise failure from error
        except PublisherError as error:
            shutil.rmtree(directory, ignore_errors=True)
            error.image = request.name
            raise

    def discard(self, request: BuildRequest) -> None:
        """Delete the finished build of a request, after it was published."""
        shutil.rmtree(self._directory(request), ignore_errors=True)
        delete_copies(request.copies, request.layers)  # a sandbox alone is made from them when it is published

    def sweep(self, wanted: Collection[str], _unknown: Collection[str] = ()) -> None:
        """See :meth:`Builder.sweep`. Finished builds are known by their configs alone."""
        names = {digest.removeprefix("sha256:") for digest in wanted}
        for directory in self._work.iterdir() if self._work.is_dir() else ():
            if directory.name.removesuffix(_SANDBOX_ONLY) not in names:
                shutil.rmtree(directory, ignore_errors=True)

    def _directory(self, request: BuildRequest) -> Path:
        name = request.image.content.removeprefix("sha256:")
        return self._work / (name if request.sif else f"{name}{_SANDBOX_ONLY}")

    def _build(self, request: BuildRequest, directory: Path, progress: Progress) -> BuiltImage:
        progress("plan", 0, 1)
        make = self._receive if request.image.is_sif else self._squash_layers
        files, (sha256, table), made_by = make(request, directory, progress)
        sif = directory / SIF
        progress("test", 0, 1)
        with _logged("test run", request):
            outcome = self._tester.test(sif, architecture=request.image.platform.architecture, has_shell=files.has_shell)
        if finished_build.sha256_of(sif) != sha256:
            raise TestRunError("the test run changed the finished SIF", hint="block the image: its code attacked this host")
        if table is not None:
            (directory / TABLE).write_bytes(table)
        built = BuiltImage(
            sif=sif,
            sha256=sha256,
            size=sif.stat().st_size,
            unpacked_size=files.unpacked_size,
            files=files.files,
            file_index=directory / FILE_INDEX,
            test=outcome.test,
            tools=dict(made_by),
            notes={**files.notes, **({"test": outcome.reason} if outcome.reason else {})},
            config=request.image.content,
            chunk_table=None if table is None else directory / TABLE,
            chunks=None if table is None else {"sha256": hashlib.sha256(table).hexdigest(), "size": len(table)},
        )
        finished_build.save(built, directory, request.image.content)
        return built

    def _squash_layers(self, request: BuildRequest, directory: Path, progress: Progress) -> tuple[SifFiles, CutSif, Tools]:
        """Make the SIF from layers."""
        _check_diff_ids(request)
        ends = self._clock() + self._deadline
        inputs = self._prepare(request, directory, ends)
        self._check_space(request, inputs, directory)
        try:
            files, cut, versions = self._squash_until_sound(request, inputs, directory, ends, progress)
        finally:
            delete_copies(request.copies, request.layers)
        tools = {**self._own_tools(), **versions, "compression": self._squasher.compression}
        return SifFiles(files.files, files.unpacked_size, inputs.has_shell, dict(inputs.plan.dropped)), cut, tools

    def _receive(self, request: BuildRequest, directory: Path, progress: Progress) -> tuple[SifFiles, CutSif, Tools]:
        """Take a finished SIF as it is."""
        progress(READ_BACK, 0, 1)
        with _logged("check of the SIF", request):
            files = receive(
                request.image,
                request.layers[0],
                directory / SIF,
                directory / FILE_INDEX,
                limits=self._limits,
                deadline=self._deadline,
                free=self._free(directory) - _FREE,
                account=self._account,
            )
            return files, cut_file(directory / SIF), {"publisher": __version__}

    def _list(self, request: BuildRequest, directory: Path, progress: Progress) -> BuiltImage:
        """Plan an image and write its file index; its sandbox is made, checked and run when it is published."""
        _check_diff_ids(request)
        progress("plan", 0, 1)
        inputs = self._prepare(request, directory, self._clock() + self._deadline)
        with _logged("file index", request), (directory / FILE_INDEX).open("wb") as out:
            files = _write_file_index(out, request, inputs)
        (directory / FILE_INDEX).chmod(0o644)
        return BuiltImage(
            sif=directory / SIF,
            sha256="",
            size=0,
            unpacked_size=files.unpacked_size,
            files=files.files,
            file_index=directory / FILE_INDEX,
            test="",
            tools=self._own_tools(),
            notes=dict(inputs.plan.dropped),
            config=request.image.content,
            source=LayeredSandbox(
                request.layers,
                request.indexes,
                inputs.skeleton,
                inputs.totals,
                directory / FILE_INDEX,
                self._limits,
                self._tester,
                request.image.platform.architecture,
                inputs.has_shell,
                request.copies,
            ),
        )

    def _own_tools(self) -> dict[str, str]:
        """Return the tools that every image is built with."""
        return {name: self._tools[name] for name in ("publisher", "apptainer")}

    def _prepare(self, request: BuildRequest, scratch: Path, ends: float) -> _SquashInputs:
        def check_deadline() -> None:
            if self._clock() >= ends:
                raise BuildError(f"planning the image did not end within {self._deadline:g} s")

        with ThreadPoolExecutor(1) as beside, _logged("metadata", request):  # Apptainer runs meanwhile
            making = beside.submit(make_skeleton, request.image, self._scratch or scratch, self._account)
            tree = flatten(request.indexes, self._limits, check_deadline)
            has_shell = tree.lookup(b"bin/sh") == "file"
            skeleton = making.result()
        extras = add_skeleton(tree, skeleton)
        plan = tree.finish()
        totals = survey(plan, request.indexes, int(self._now()), self._limits)
        return _SquashInputs(plan, totals, skeleton, extras, has_shell)

    def _check_space(self, request: BuildRequest, inputs: _SquashInputs, directory: Path) -> None:
        """Raise SpaceError, before anything is written, if the SIF could need more space than is free."""
        compressed = sum(layer.stat().st_size for layer in set(request.layers))
        content = min(inputs.totals.unpacked_size, int(_GROWTH * compressed))
        needed = self._squasher.copies * (content + _BYTES_PER_ENTRY * inputs.plan.entry_count) + _FREE
        free = self._free(directory)
        if free < needed:
            reason = (
                f"no space for the SIF: {self._work} has {format_size(free)} free, and may need "
                f"{format_size(needed - _FREE)} for it and a reserve of {format_size(_FREE)}"
            )
            raise SpaceError(reason, hint="free space there and run again")

    def _squash_until_sound(
        self, request: BuildRequest, inputs: _SquashInputs, directory: Path, ends: float, progress: Progress
    ) -> tuple[FileIndexWriter, CutSif, Tools]:
        """Make the SIF and read it back; repeat it if they differ: mksquashfs has a race, an earlier SIF can be damaged."""
        for attempt in range(1, _MAX_TRIES):
            try:
                return self._squash_and_check(request, inputs, directory, ends, progress)
            except ReadbackError as error:
                _log.debug("%s: the SIF is made again after try %d of %d: %s", request.name, attempt, _MAX_TRIES, error)
                (directory / SIF).unlink()
                request = replace(request, earlier=None)  # it may be damaged
        return self._squash_and_check(request, inputs, directory, ends, progress)

    def _squash_and_check(
        self, request: BuildRequest, inputs: _SquashInputs, directory: Path, ends: float, progress: Progress
    ) -> tuple[FileIndexWriter, CutSif, Tools]:
        with _logged("squash", request):
            listed, made_by = self._squash(request, inputs, directory, ends, progress)
            architecture = request.image.platform.architecture
            identity = bytes.fromhex(request.image.content.removeprefix("sha256:"))
            write_sif_header(directory / SIF, architecture=architecture, identity=identity, epoch=inputs.totals.newest)
        progress(READ_BACK, 0, 1)
        with _logged("readback", request), ThreadPoolExecutor(2) as beside:
            synced, cut = beside.submit(finished_build.sync, directory / SIF), beside.submit(cut_file, directory / SIF)
            deadline = max(1.0, ends - self._clock())
            readback.check(directory / SIF, listed.expected, deadline=deadline)
        synced.result()
        return listed.files, cut.result(), made_by

    def _squash(
        self, request: BuildRequest, inputs: _SquashInputs, directory: Path, ends: float, progress: Progress
    ) -> tuple[Listed, Tools]:
        """Make the squashfs and the file index; return what was found meanwhile, and the versions of what made it."""
        deadline = math.ceil(max(0.0, ends - self._clock()))
        total = sum(layer.stat().st_size for layer in request.layers)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress("squash", done, total)

        source = SquashSource(
            inputs.plan,
            inputs.totals,
            inputs.extras,
            layers=request.layers,
            indexes=request.indexes,
            copies=request.copies,
            file_index=directory / FILE_INDEX,
            progress=advance,
            earlier=request.earlier,
        )
        made_by = self._squasher.squash(directory / SIF, source, offset=DATA_OFFSET, deadline=deadline)
        return source.listed, made_by


@dataclass(frozen=True)
class _SquashInputs:
    """Everything that is decided before the first byte is squashed."""

    plan: FlattenPlan
    totals: StreamSurvey
    skeleton: MetadataSkeleton
    extras: list[ExtraEntry]
    has_shell: bool


def _write_file_index(out: IO[bytes], request: BuildRequest, inputs: _SquashInputs) -> FileIndexWriter:
    files = FileIndexWriter(out)
    write_listing(files, inputs.plan, request.indexes, inputs.extras, inputs.totals.newest)
    files.close()
    out.flush()
    return files


@contextlib.contextmanager
def _logged(step: str, request: BuildRequest) -> Iterator[None]:
    """Log the name and duration of a step when it has finished without an exception."""
    start = time.monotonic()
    yield
    _log.info("%s: %s finished in %.1f s", request.name, step, time.monotonic() - start)


def _check_diff_ids(request: BuildRequest) -> None:
    """Raise LayerError if a layer does not unpack to what the config says (OCI image specification: ``rootfs.diff_ids``)."""
    diff_ids = request.image.config.diff_ids
    if len(diff_ids) != len(request.indexes):
        raise LayerError(f"the image has {len(request.indexes)} layers, its config describes {len(diff_ids)}")
    for number, (path, diff_id) in enumerate(zip(request.indexes, diff_ids, strict=True), 1):
        summary = read_summary(path)
        if summary is None:
            hint = "run the command again: the index is written while the layer is fetched"
            raise BuildError(f"layer {number} has no header index", hint=hint)
        if summary.diff_id != diff_id:
            raise LayerError(f"layer {number} unpacks to {summary.diff_id}, its config says {diff_id}")
