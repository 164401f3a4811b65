from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.contract.reference import parse
from tests.support.images.built_layers import request
from tests.support.images.layers import directory, file, symlink, tar
from tests.support.publisher.local_builder import builder

if TYPE_CHECKING:
    from publisher.build.builder import BuildRequest
    from publisher.state.built import BuiltImage


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> BuildRequest:
    """A request with the layers of a small image."""
    layers = [
        tar([directory("etc"), file("etc/motd", b"hello\n")]),
        tar([symlink("motd", "etc/motd"), file("data", b"1" * 5000)]),
    ]
    made = request(layers, tmp_path_factory.mktemp("layers"), {"Env": ["GREETING=hello"]})
    return replace(made, reference=parse("registry.example.org/htc/small:1"))


@pytest.fixture(scope="module")
def build(asked: BuildRequest, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """The image, built by the real programs."""
    return builder(tmp_path_factory.mktemp("built")).build(asked, lambda *_: None)
