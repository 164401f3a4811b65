"""A registry client for one scripted registry; its waits take no time."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING

from publisher import oci
from publisher.contract.reference import Reference
from publisher.net.retry import RetryPolicy
from publisher.registry.client import RegistryClient
from tests.support.loopback import LOOPBACK
from tests.support.registries.scripted_http import ScriptedServer, says

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from publisher.registry.credentials import Credentials
    from publisher.registry.transport import RegistryTimeouts
    from tests.support.registries.scripted_http import Reply

BODY = b'{"schemaVersion": 2, "config": {}, "layers": []}'
DIGEST = "sha256:" + hashlib.sha256(BODY).hexdigest()
BLOB = bytes(range(256)) * 4
LAYER = oci.Descriptor("application/vnd.oci.image.layer.v1.tar", "sha256:" + hashlib.sha256(BLOB).hexdigest(), len(BLOB))
MANIFEST, BY_DIGEST, BLOBS = "/v2/a/b/manifests/1", f"/v2/a/b/manifests/{DIGEST}", f"/v2/a/b/blobs/{LAYER.digest}"
HERE = {"Docker_Content_Digest": DIGEST, "Content_Type": oci.OCI_MANIFEST}


class ScriptedClient:
    """A client for one scripted registry.

    Attributes:
        registry: the registry.
        client: the client.
        pauses: the waits so far, in seconds.
        reference: an image of the registry.
    """

    def __init__(self, registry: ScriptedServer, client: RegistryClient, pauses: list[float]) -> None:
        self.registry = registry
        self.client = client
        self.pauses = pauses
        self.reference = Reference(registry.address, "a/b", "1")

    async def head(self) -> oci.Descriptor:
        return await self.client.head(self.reference)

    async def manifest(self) -> tuple[str, bytes]:
        return await self.client.manifest(self.reference, DIGEST)

    async def blob(self, offset: int = 0) -> bytes:
        received = bytearray()

        async def sink(chunk: bytes) -> None:
            received.extend(chunk)

        await self.client.blob(self.reference, LAYER, sink, offset)
        return bytes(received)


@contextlib.asynccontextmanager
async def scripted_client(
    routes: dict[str, list[Reply]],
    *,
    credentials: Credentials | None = None,
    timeouts: RegistryTimeouts | None = None,
    concurrency: int = 16,
    rate: float | None = None,
    mirrors: Sequence[str] = (),
    mirror_tags: bool = True,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[ScriptedClient]:
    """Open a client for a scripted registry; without ``clock``, its time advances only by the waits."""
    pauses: list[float] = []
    slept = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal slept
        pauses.append(seconds)
        slept += seconds
        await asyncio.sleep(0)

    async with (
        ScriptedServer({"GET /v2/": [says()], **routes}) as registry,
        RegistryClient(
            insecure=frozenset({registry.address}),
            credentials=lambda _: credentials,
            timeouts=timeouts,
            retry=RetryPolicy(sleep=sleep),
            concurrency=concurrency,
            rates={} if rate is None else {registry.address: rate},
            mirrors={registry.address: mirrors},
            mirror_tags=mirror_tags,
            networks=LOOPBACK,
            federation=registry.address,
            clock=clock or (lambda: slept),
        ) as client,
    ):
        yield ScriptedClient(registry, client, pauses)
