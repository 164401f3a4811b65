"""The local builder with the real programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.build.local import LocalBuilder
from publisher.build.squash.find import find_squasher
from publisher.build.testrun import TestRunner
from tests.support.images.tar_stream import NOW

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.build.builder import BuildRequest
    from publisher.build.squash.programs import Squasher
    from publisher.errors import PublisherError
    from publisher.state.built import BuiltImage

ACCOUNT = "nobody"


def builder(where: Path, squasher: Squasher | None = None, **more: object) -> LocalBuilder:
    scratch = where / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    tester = TestRunner(ACCOUNT, scratch, deadline=60)
    return LocalBuilder(where / "builds", squasher or find_squasher(), tester, **{"now": lambda: NOW, **more})  # type: ignore[arg-type]  # its own


def build(asked: BuildRequest, where: Path) -> BuiltImage:
    return builder(where).build(asked, lambda *_: None)


def refused(asked: BuildRequest, where: Path, kind: type[PublisherError], problem: str, **more: object) -> None:
    """Check that a build fails with the reason and the image's name, and leaves nothing."""
    with pytest.raises(kind, match=problem) as caught:
        builder(where, None, **more).build(asked, lambda *_: None)
    assert caught.value.image == asked.name
    assert list((where / "builds").iterdir()) == []
    assert list((where / "scratch").iterdir()) == []
