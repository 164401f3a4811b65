"""A sandbox straight from the layers of an image, for entries that want no SIF: nothing is squashed.

The stream that a SIF would be squashed from is unpacked by GNU tar. For a clone, only the paths that differ are in the stream,
and layers without any of them are not read. Tar has nothing to judge: every path is the plan's, which no symbolic link leads
elsewhere. The finished tree is run, and compared with its file index, before it is published.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.build.metadata import add_skeleton
from publisher.build.sandbox import unpack
from publisher.build.sandbox.verify_tree import differences, walk
from publisher.errors import BuildError, CommandError, RepositoryError, shown
from publisher.fileindex.format import read_file_index
from publisher.layers.emit import Emitter, Output
from publisher.layers.flatten import flatten
from publisher.state.built import SandboxSource
from publisher.system import command
from publisher.system.durable import delete, failures

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from publisher.build.metadata import MetadataSkeleton
    from publisher.build.testrun import TestRunner
    from publisher.layers.limits import LayerLimits
    from publisher.layers.survey import StreamSurvey
    from publisher.system.shield import Shield

_WITHOUT_UMASK = ("sh", "-c", 'umask 0 && exec "$@"', "sh")


@dataclass(frozen=True)
class LayeredSandbox(SandboxSource):
    """The sandbox of an image that was planned and not squashed.

    Attributes:
        layers: the blobs, from the bottom up.
        indexes: their header indexes.
        skeleton: the entries that Apptainer adds.
        totals: the totals of the plan.
        file_index: the file index of the image.
        limits: limits of the image.
        tester: runs the finished sandbox.
        architecture: Go's name of the image's architecture.
        has_shell: the image has /bin/sh.
        copies: the directory of uncompressed copies of the layers, None for none.
    """

    layers: tuple[Path, ...]
    indexes: tuple[Path, ...]
    skeleton: MetadataSkeleton
    totals: StreamSurvey
    file_index: Path
    limits: LayerLimits
    tester: TestRunner
    architecture: str
    has_shell: bool
    copies: Path | None = None

    def unpack(self, target: Path, *, deadline: float, shield: Shield) -> None:
        """See :meth:`SandboxSource.unpack`."""
        with failures(RepositoryError, f"the sandbox {target.name} cannot be written"):
            unpack.require_new(target)
            unpack.check_space(target, self.totals.unpacked_size)
            try:
                self._extract(target, None, deadline, shield)
                unpack.add_catalog_mark(target)
            except BaseException:
                delete(target)
                raise

    def extract_paths(self, target: Path, paths: Collection[bytes], *, deadline: float, shield: Shield) -> None:
        """See :meth:`SandboxSource.extract_paths`."""
        only = frozenset(paths)
        self._extract(target, only, deadline, shield)
        for path, _, status in walk(os.fsencode(target)):  # of the clone itself, only what is expected is looked at
            if path not in only and not stat.S_ISDIR(status.st_mode):
                raise RepositoryError(f"tar has unpacked {shown(path)}, which was not asked for")

    def check(self, tree: Path, changed: Collection[bytes] | None = None) -> tuple[str, str]:
        """See :meth:`SandboxSource.check`."""
        outcome = self.tester.test(tree, architecture=self.architecture, has_shell=self.has_shell)
        with self.file_index.open("rb") as lines:  # afterwards: the image's code has run
            problem = next(differences(read_file_index(lines), str(tree), changed), None)
        if problem is not None:
            raise BuildError(
                f"the finished sandbox differs from its file index: {problem}",
                hint="run again; if it happens again, the disk fails, or the image's own code attacks this host",
            )
        return outcome.test, outcome.reason

    def _extract(self, target: Path, only: frozenset[bytes] | None, deadline: float, shield: Shield) -> None:
        target.mkdir(mode=0o755)
        if only is None or only:
            try:
                self._write_stream(target, only, deadline, shield)
            except CommandError as error:
                unpack.raise_host_error(error.stderr)
                reason = f"the sandbox cannot be unpacked from its layers: {error.reason}"
                raise RepositoryError(reason, hint=error.hint) from error
        mode, uid, gid = self.totals.root
        if os.geteuid() == 0:
            os.chown(target, uid, gid)
        target.chmod(mode if os.geteuid() == 0 else mode & 0o777)
        os.utime(target, (self.totals.newest, self.totals.newest))

    def _write_stream(self, target: Path, only: frozenset[bytes] | None, deadline: float, shield: Shield) -> None:
        tree = flatten(self.indexes, self.limits)
        extras = add_skeleton(tree, self.skeleton)
        plan = tree.finish()
        if only is not None:
            plan = plan.only(only, self.indexes)
            extras = [extra for extra in extras if extra.name in only]
        with command.feed(_argv(target, shield), deadline=deadline, name="tar") as stdin:
            emitter = Emitter(Output(stdin.write, stdin.fileno()), self.totals.newest)
            emitter.write_layers(plan, self.layers, self.indexes, lambda _: None, self.copies)
            emitter.write_directories(plan.implied_directories)
            for extra in extras:
                emitter.write_entry(extra)
            emitter.write_end()


def _argv(target: Path, shield: Shield) -> list[str]:
    """Return the command that unpacks a stream; an ordinary user sets no owners and no special bits, as with unsquashfs."""
    argv = ["tar", "--extract", "--file=-", f"--directory={target}", "--delay-directory-restore"]
    argv += ["--numeric-owner", "--xattrs", "--warning=no-timestamp"]
    if os.geteuid() == 0:
        argv += ["--same-owner", "--preserve-permissions", "--xattrs-include=*"]
    else:
        argv += ["--no-same-owner", "--no-same-permissions", "--xattrs-include=user.*"]
    return [*_WITHOUT_UMASK, *shield.wrap(argv)]
