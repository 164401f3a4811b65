from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from publisher import oci
from publisher.errors import NotFoundError, UnavailableError
from publisher.plan.make import make_plan
from publisher.plan.model import Action
from publisher.provenance.sigstore_bundle import BundleVerifier
from publisher.publish.resolve import Resolver
from publisher.registry.blobs.store import BlobStore
from publisher.state import paths
from publisher.state.snapshot import Snapshot
from tests.support.publisher.built_values import carried_out
from tests.support.publisher.lists import listed, parse
from tests.support.registries.scripted_http import says
from tests.support.registries.scripted_registry import scripted_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from publisher.images.reader import Entry
    from tests.support.registries.scripted_http import Reply
    from tests.support.registries.scripted_registry import ScriptedClient


GONE = says(404, Docker_Distribution_Api_Version="registry/2.0")


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def image(tag: str, architecture: str) -> tuple[str, dict[str, list[Reply]]]:
    """The digest of an image of the registry's repository a/b, and what the registry says about it."""
    config = json.dumps({"os": "linux", "architecture": architecture, "rootfs": {"diff_ids": []}, "for": tag}).encode()
    described = {"mediaType": oci.OCI_CONFIG, "digest": sha256(config), "size": len(config)}
    body = json.dumps({"schemaVersion": 2, "config": described, "layers": []}).encode()
    headers = {"Docker_Content_Digest": sha256(body), "Content_Type": oci.OCI_MANIFEST}
    return sha256(body), {
        f"HEAD /v2/a/b/manifests/{tag}": [says(200, b"", **headers)] * 3,
        f"GET /v2/a/b/manifests/{sha256(body)}": [says(200, body, **headers)],
        f"GET /v2/a/b/blobs/{sha256(config)}": [says(200, config)],
        **{
            f"HEAD /v2/a/b/manifests/{sha256(body).replace(':', '-')}{suffix}": [GONE] for suffix in ("", ".sig", ".att", ".sbom")
        },
    }


CPU, CPU_SAID = image("cpu", "amd64")
CUDA, CUDA_SAID = image("cuda", "amd64")
ARM, ARM_SAID = image("arm", "arm64")
ALL = {**CPU_SAID, **CUDA_SAID, **ARM_SAID}


@contextlib.asynccontextmanager
async def opened(said: dict[str, list[Reply]], where: Path) -> AsyncIterator[tuple[Resolver, ScriptedClient, Entry]]:
    """A resolver for a registry, and a family of three images of it."""
    async with scripted_client(said) as it:
        variants = "".join(
            f"\n          - {{image: '{it.registry.address}/a/b:{tag}'{when}}}"
            for tag, when in {"cpu": "", "cuda": ", when: 'cuda>=12.4'", "arm": ", when: arm64"}.items()
        )
        (entry,) = parse(listed(f"image: {it.registry.address}/a/b:1\n        variants:{variants}"))
        yield Resolver(it.client, it.client, BlobStore(where), BundleVerifier(None), private_images=False), it, entry


async def test_a_family_is_resolved_image_by_image(tmp_path: Path) -> None:
    async with opened(ALL, tmp_path) as (resolver, it, entry):
        answer = await resolver.resolve(entry, None)
        assert {paths.platform_key(one): digest for one, digest in answer.digests.items()} == {
            "amd64": CPU,
            "amd64,cuda>=12.4": CUDA,
            "arm64": ARM,
        }
        assert len(answer.provenance) == 3
        images = await resolver.inspect(entry)
        assert [one.manifest.digest for one in images] == [CPU, CUDA, ARM]
        manifests = await resolver.image_manifests(entry, answer)
        assert [one.digest for one in manifests.values()] == [CPU, CUDA, ARM]
        snapshot = carried_out(make_plan([entry], {entry.name: answer}, Snapshot("r")), Snapshot("r"), 1000)
        before = len(it.registry.asked)
        again = await resolver.resolve(entry, snapshot.records[entry.name])
        assert [request.method for request in it.registry.asked[before:]] == ["HEAD"] * 3
        (item,) = make_plan([entry], {entry.name: again}, snapshot).items
        assert item.action is Action.UNCHANGED


async def test_a_variant_that_is_gone_leaves_the_family_as_it_is(tmp_path: Path) -> None:
    async with opened({**CPU_SAID, **ARM_SAID, "HEAD /v2/a/b/manifests/cuda": [GONE]}, tmp_path) as (resolver, _, entry):
        with pytest.raises(UnavailableError, match=r"a variant is gone: .*cuda"):
            await resolver.resolve(entry, None)


async def test_a_family_that_is_gone_altogether_is_gone(tmp_path: Path) -> None:
    async with opened({f"HEAD /v2/a/b/manifests/{tag}": [GONE] for tag in ("cpu", "cuda", "arm")}, tmp_path) as (
        resolver,
        _,
        entry,
    ):
        with pytest.raises(NotFoundError):
            await resolver.resolve(entry, None)
