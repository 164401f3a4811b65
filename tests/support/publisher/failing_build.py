"""A build on a disk that fails at each write; runs as a program, see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from publisher.errors import PublisherError
from publisher.fileindex.format import read_file_index
from tests.support.images.built_layers import request
from tests.support.images.layers import directory, file, tar
from tests.support.machine.failing_writes import fail_everywhere, fail_program_everywhere
from tests.support.publisher.local_builder import builder

LAYER = tar([directory("etc"), file("etc/a", bytes(range(256)) * 700)])  # without a shell: its structure is tested


def main(error: str, where: Path) -> None:
    """Build an image with an error at writes of the publisher, then at those of mksquashfs."""
    where.chmod(0o711)  # the test account passes through it
    asked = request([LAYER], where / "layers")
    reference = builder(where / "right").build(asked, lambda *_: None)
    disk = where / "disk"

    def restore() -> None:
        shutil.rmtree(disk, ignore_errors=True)
        (disk / "scratch").mkdir(parents=True)

    def build() -> None:
        built = builder(disk).build(asked, lambda *_: None)
        assert built.sif.read_bytes() == reference.sif.read_bytes()
        with built.file_index.open("rb") as one, reference.file_index.open("rb") as other:
            assert list(read_file_index(one)) == list(read_file_index(other))

    def work() -> None:
        said, hint = "", "no failure"
        try:
            build()
        except PublisherError as failure:
            said, hint = str(failure), failure.hint or ""
            assert not any((disk / "builds").glob("*")), "a failed build leaves nothing"
        assert hint, f"a message that does not say what to do: {said}"

    def check() -> None:
        if any((disk / "builds").glob("*")):
            build()  # what is kept is right
        if any((disk / "scratch").iterdir()):
            shutil.rmtree(disk / "builds", ignore_errors=True)
            build()
        assert not any((disk / "scratch").iterdir()), "the next build deletes the home of a test run that is left"

    writes = fail_everywhere(error, disk, restore, work, check)
    own = fail_program_everywhere(error, disk, "mksquashfs", restore, work, check)
    sys.stdout.write(f"{writes} writes of the publisher, {own} of mksquashfs\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
