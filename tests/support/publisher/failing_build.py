"""A build on a disk that fails at each write; runs as a program, see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import shutil
from dataclasses import replace

from publisher.build.builder import EarlierSif
from publisher.build.squash.find import find_squasher
from publisher.build.squash.programs import Mksquashfs
from publisher.errors import PublisherError
from publisher.fileindex.format import read_file_index
from tests.support.images.built_layers import request
from tests.support.images.layers import directory, file, tar
from tests.support.machine.failing_writes import FailingDisk, must_advise
from tests.support.publisher.local_builder import builder

LAYER = tar([directory("etc"), file("etc/a", bytes(range(256)) * 700)])  # without a shell: its structure is tested


def main(failing: FailingDisk) -> None:
    """Build with an error at writes of the publisher, also where it copies an earlier SIF; then at those of mksquashfs."""
    plain = request([LAYER], failing.where / "layers")
    reference = builder(failing.where / "right").build(plain, lambda *_: None)
    asked, squasher = plain, find_squasher()
    disk = failing.root

    def restore() -> None:
        failing.empty()
        (disk / "scratch").mkdir()

    def build() -> None:
        built = builder(disk, squasher).build(asked, lambda *_: None)
        assert built.sif.read_bytes() == reference.sif.read_bytes()
        with built.file_index.open("rb") as one, reference.file_index.open("rb") as other:
            assert list(read_file_index(one)) == list(read_file_index(other))

    def work() -> None:
        try:
            build()
        except PublisherError:
            assert not any((disk / "builds").glob("*")), "a failed build leaves nothing"
            raise

    def check() -> None:
        if any((disk / "builds").glob("*")):
            build()  # what is kept is right
        if any((disk / "scratch").iterdir()):
            shutil.rmtree(disk / "builds", ignore_errors=True)
            build()
        assert not any((disk / "scratch").iterdir()), "the next build deletes the home of a test run that is left"

    failing.fail(lambda: must_advise(work), check, restore=restore)
    asked = replace(plain, earlier=EarlierSif(reference.sif, reference.file_index))
    failing.fail(lambda: must_advise(work), check, restore=restore)
    asked, squasher = plain, Mksquashfs()
    failing.wrap("mksquashfs")
    failing.fail(lambda: must_advise(work), check, restore=restore, here=False)
