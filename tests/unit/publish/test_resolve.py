from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.contract.reference import Reference
from publisher.errors import NotFoundError, UnavailableError, UnsupportedError
from publisher.provenance.sigstore_bundle import BundleVerifier
from publisher.publish import resolve
from publisher.publish.resolve import Resolver
from publisher.registry.blobs.store import BlobStore
from tests.support.publisher.built_values import AMD64, ARM64, entry
from tests.support.registries.scripted_http import says
from tests.support.registries.scripted_registry import scripted_client
from tests.unit.publish.test_fetch import CONFIG, MANIFEST, holding, index, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.images.reader import Entry
    from publisher.oci import Platform
    from publisher.provenance.lookup import Provenance
    from tests.support.registries.scripted_registry import ScriptedClient

INDEX = index()


@pytest.fixture(autouse=True)
def nothing_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(*_: object) -> dict[Platform, Provenance]:
        return {}

    monkeypatch.setattr(resolve, "look_up", look_up)


def resolver(it: ScriptedClient, where: Path) -> Resolver:
    return Resolver(it.client, it.client, BlobStore(where), BundleVerifier(None), private_images=False)


def pinned(it: ScriptedClient, body: bytes) -> Entry:
    made = entry(str(it.reference), [AMD64, ARM64] if body == INDEX else [AMD64])
    return replace(made, reference=Reference(it.reference.registry, "a/b", "1", sha256(body)))


@pytest.mark.parametrize("body", [INDEX, MANIFEST], ids=["an index", "a manifest"])
async def test_a_new_image_is_resolved_with_the_digest_of_its_config(tmp_path: Path, body: bytes) -> None:
    async with scripted_client(holding(body, MANIFEST)) as it:
        answer = await resolver(it, tmp_path).resolve(pinned(it, body), None)
        assert (answer.digests, answer.configs) == ({AMD64: sha256(MANIFEST)}, {AMD64: sha256(CONFIG)})


async def test_an_index_in_the_place_of_an_image_is_not_taken_for_one(tmp_path: Path) -> None:
    outer = index(INDEX)
    async with scripted_client(holding(outer, INDEX, MANIFEST)) as it:
        with pytest.raises(UnsupportedError, match="another image index in place of the image for linux/amd64"):
            await resolver(it, tmp_path).resolve(pinned(it, outer), None)


async def test_a_pinned_digest_is_gone_only_if_it_is_itself_unknown(tmp_path: Path) -> None:
    """A name leaves when its image is gone; a registry that has lost a part of it is at fault."""
    unknown = says(404, Docker_Distribution_Api_Version="registry/2.0")
    async with scripted_client({f"GET /v2/a/b/manifests/{sha256(INDEX)}": [unknown]}) as it:
        with pytest.raises(NotFoundError):
            await resolver(it, tmp_path / "one").resolve(pinned(it, INDEX), None)
    async with scripted_client({**holding(INDEX), f"GET /v2/a/b/manifests/{sha256(MANIFEST)}": [unknown]}) as it:
        with pytest.raises(UnavailableError, match="not the image behind it"):
            await resolver(it, tmp_path / "two").resolve(pinned(it, INDEX), None)
