"""Apptainer's metadata build on a disk that fails at Apptainer's writes; see :mod:`tests.support.machine.failing_writes`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from publisher.build.metadata import make_skeleton
from tests.support.images.built_layers import image
from tests.support.machine.failing_writes import must_advise

if TYPE_CHECKING:
    from tests.support.machine.failing_writes import FailingDisk


def main(failing: FailingDisk) -> None:
    """Make the metadata of an image, with an error at each write of Apptainer."""
    if os.geteuid() != 0:
        sys.stdout.write("NOT TESTED: writes of Apptainer that fail; only root watches another program's system calls")
        return
    asked = image([], {"Env": ["A=1"]})
    expected = make_skeleton(asked, failing.where)

    def work() -> None:
        assert make_skeleton(asked, failing.root) == expected, "what Apptainer does not report as a failure is whole"

    def check() -> None:
        assert list(failing.root.iterdir()) == []

    failing.wrap("apptainer", calls=True)
    failing.fail(lambda: must_advise(work), check, here=False)
