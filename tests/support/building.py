"""The builder with the real programs, as tests use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.builders.local import LocalBuilder
from publisher.squash import Mksquashfs
from publisher.testrun import TestRunner
from tests.support.engine import NOW

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.builders import BuildRequest
    from publisher.built import BuiltImage
    from publisher.errors import PublisherError

ACCOUNT = "nobody"


def builder(where: Path, **more: object) -> LocalBuilder:
    scratch = where / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    tester = TestRunner(ACCOUNT, scratch, deadline=60)
    return LocalBuilder(where / "builds", Mksquashfs(), tester, **{"now": lambda: NOW, **more})  # type: ignore[arg-type]  # its own


def build(asked: BuildRequest, where: Path) -> BuiltImage:
    return builder(where).build(asked, lambda *_: None)


def refused(asked: BuildRequest, where: Path, kind: type[PublisherError], problem: str, **more: object) -> None:
    """The build fails with the reason and the image's name, and leaves nothing."""
    with pytest.raises(kind, match=problem) as caught:
        builder(where, **more).build(asked, lambda *_: None)
    assert caught.value.image == asked.name
    assert list((where / "builds").iterdir()) == []
    assert list((where / "scratch").iterdir()) == []
