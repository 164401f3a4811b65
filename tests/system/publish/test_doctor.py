"""``publisher doctor`` on a real host, before its first sync: what ``ci/quickstart`` runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.images.printing_image import push
from tests.support.publisher.host import Host

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer


def test_nothing_is_wrong_with_a_host_that_can_publish(shared_path: Path, registry: RegistryServer) -> None:
    host = Host(shared_path, registry)
    push(registry, "doctor/one:1")
    host.images("doctor/one:1")
    done = host.run("doctor", "--json")
    found = json.loads(done.stdout)
    assert [one for one in found if one["verdict"] == "wrong"] == []
    assert done.returncode == 0
    assert {one["part"] for one in found} >= {"image list", "tools", "accounts", "keys", "repository", "origin", "registries"}
    assert any(one["text"] == f"{registry.address} answers" for one in found)
