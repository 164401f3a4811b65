"""What ``publisher check`` says of a tag that does not exist: whether its repository does, and which tags are similar."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from publisher.errors import NotFoundError
from publisher.images.reader import Entry
from publisher.oci import Platform
from publisher.provenance.sigstore_bundle import BundleVerifier
from publisher.publish.resolve import Resolver
from publisher.registry.blobs.store import BlobStore
from tests.support.registries.scripted_http import says
from tests.support.registries.scripted_registry import MANIFEST, scripted_client

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.scripted_http import Reply

API = {"Docker_Distribution_Api_Version": "registry/2.0"}


def error(code: str) -> Reply:
    return says(404, json.dumps({"errors": [{"code": code}]}).encode(), **API)


async def explanation(where: Path, tags: Reply) -> str:
    """Return what is said of the tag ``1`` of a registry that does not have it."""
    routes: dict[str, list[Reply]] = {f"HEAD {MANIFEST}": [error("MANIFEST_UNKNOWN")], "GET /v2/a/b/tags/list": [tags]}
    async with scripted_client(routes) as it:
        resolver = Resolver(it.client, it.client, BlobStore(where), BundleVerifier(None), private_images=False)
        entry = Entry("a/b:1", it.reference, (Platform("linux", "amd64"),), frozenset({"sif"}))
        with pytest.raises(NotFoundError) as caught:
            await resolver.inspect(entry)
        return str(caught.value).replace(it.registry.address, "REGISTRY")


@pytest.mark.parametrize(
    ("tags", "says_what"),
    [
        (["1.0", "2.0"], "REGISTRY has the repository a/b, but not the tag 1 (its newest tags are 2.0, 1.0)"),
        (["9", "10", "8"], "REGISTRY has the repository a/b, but not the tag 1 (did you mean 10?)"),
        (["latest", "v3"], "REGISTRY has the repository a/b, but not the tag 1 (its newest tags are v3, latest)"),
        ([], "REGISTRY has the repository a/b, but not the tag 1 (it has no tags)"),
    ],
)
async def test_a_missing_tag_is_reported_with_those_that_may_be_meant(tmp_path: Path, tags: list[str], says_what: str) -> None:
    assert says_what in await explanation(tmp_path, says(200, json.dumps({"tags": tags}).encode()))


async def test_a_missing_repository_is_reported_as_such(tmp_path: Path) -> None:
    assert "REGISTRY has no repository a/b (check its name)" in await explanation(tmp_path, error("NAME_UNKNOWN"))


async def test_a_registry_that_does_not_list_tags_leaves_the_plain_answer(tmp_path: Path) -> None:
    assert "REGISTRY has no a/b:1" in await explanation(tmp_path, says(403, **API))
