"""Attacker: another account on the publisher host, which could write to the state directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.images.built_layers import request
from tests.support.images.layers import file, tar
from tests.support.images.printing_image import push, said_by
from tests.support.images.runnable import runnable
from tests.support.publisher.local_builder import build

if TYPE_CHECKING:
    from tests.support.publisher.host import Host
    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system


def test_a_build_that_lies_under_another_images_digest_is_not_published(host: Host, registry: RegistryServer) -> None:
    digest = push(registry, "neighbour/good:1", "good")
    planted = build(request([tar([*runnable(), file("text", b"evil\n")])], host.where / "blobs"), host.state)
    planted.sif.parent.rename(host.state / "builds" / digest.removeprefix("sha256:"))
    host.images("neighbour/good:1")
    host.sync()
    for image in (host.repository / "neighbour/good:1", host.sif("neighbour/good:1")):
        assert said_by(image, host).endswith("good\n")


def test_nothing_is_published_from_a_state_directory_that_others_can_write_to(host: Host, registry: RegistryServer) -> None:
    push(registry, "neighbour/open:1", "good")
    host.images("neighbour/open:1")
    host.state.mkdir()
    host.state.chmod(0o777)
    refused = host.sync(check=False)
    assert refused.status == 1
    assert f"other accounts may write to the state directory {host.state}" in refused.stderr
    assert host.index() is None
