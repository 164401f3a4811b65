"""The status page of real syncs: it is beside the manifest, and tells what a build changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.images.printing_image import push
from tests.support.publisher.host import Host

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system


def test_a_sync_writes_the_page_beside_the_manifest(shared_path: Path, registry: RegistryServer) -> None:
    host = Host(shared_path, registry)
    host.page = "origin"
    push(registry, "page/image:1", "one")
    host.images("page/image:1", "page/none:1")
    host.sync(check=False)
    push(registry, "page/image:1", "another one")
    report = host.sync(check=False)
    assert "status page" not in str(report.said["notes"])
    shown = (host.origin / "page/image/page/image:1.html").read_text()
    for text in (
        host.record("page/image:1").digest,
        "container_image = /cvmfs/images.example.org/page/image:1",
        "org.example.purpose",
        "What changed in the last build",
        "<b>updated</b> for amd64",
        "<b>published</b> for amd64",
    ):
        assert text in shown, text
    assert "has no page/none:1" in (host.origin / "page/image/page/none:1.html").read_text()
    assert "page/image:1" in (host.origin / "page/index.html").read_text()
    audit = host.run("origin", check=True).stdout
    assert "not named" not in audit
