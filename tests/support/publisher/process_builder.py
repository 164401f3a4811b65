"""A builder for build processes: what it does is in the name of the request."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.build.builder import Builder
from publisher.errors import LayerError
from publisher.state.built import BuiltImage
from tests.support.publisher.built_values import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from publisher.build.builder import BuildRequest


class ScriptedBuilder(Builder):
    """A builder whose builds say in which process they were.

    Args:
        where: a directory: ``turns``, a FIFO in it, is what a build named ``meet`` writes to and then waits for.
    """

    def __init__(self, where: Path) -> None:
        self.where = where

    def build(self, request: BuildRequest, progress: Callable[[str, int, int], None]) -> BuiltImage:
        name = request.name
        progress("squash", 1, 2)
        logging.getLogger("publisher.build.scripted").info("%s is built", name)
        if name.startswith("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("refused"):
            raise LayerError("not a tar archive", image=name, hint="push it again")
        if name.startswith("bug"):
            raise ZeroDivisionError(name)
        if name.startswith("hangs"):
            (self.where / name).touch()
            signal.pause()
        return BuiltImage(Path(name), digest(name), 1, 2, 3, Path("index"), "ran", {"process": str(os.getpid())})

    def discard(self, request: BuildRequest) -> None:
        (self.where / f"discarded {request.name}").touch()

    def sweep(self, wanted: Collection[str], _unknown: Collection[str] = ()) -> None:
        (self.where / f"swept {sorted(wanted)}").touch()
