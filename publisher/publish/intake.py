"""Connects a run to the registries: resolves references and fetches what has to be built.

The network runs in a background thread; the methods of :class:`Intake` can be called from ordinary code.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from publisher.build.builder import BuildRequest
from publisher.errors import PublisherError
from publisher.images.variant import plain
from publisher.net.loop import BackgroundLoop
from publisher.oci import parse_manifest
from publisher.plan.model import ResolvedReference
from publisher.provenance.sigstore_bundle import BundleVerifier
from publisher.publish.fetch import fetch_image, fetch_layers
from publisher.publish.resolve import Resolver
from publisher.state.paths import platform_key
from publisher.system.progress import FETCH

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from publisher.contract.records import Record
    from publisher.images.reader import Entry, Pattern
    from publisher.oci import Image, ImageManifest, Platform
    from publisher.plan.model import PlanItem, PlatformTarget
    from publisher.registry.blobs.store import BlobStore
    from publisher.registry.client import RegistryClient, RegistryUse
    from publisher.system.progress import Display

T = TypeVar("T")
U = TypeVar("U")

_CONCURRENCY = 256  # references under way; the client limits the requests to each registry


class Intake:
    """A context manager around the connections to all registries.

    Args:
        client: makes the registry client; called in the background's event loop.
        store: makes the blob store; called likewise.
        display: shows progress.
        public: makes a registry client without credentials and mirrors, which sees what everybody can see.
        verifier: verifies the signatures that entries require.
        private_images: images that cannot be pulled anonymously may be published, where their entries say so too.

    Attributes:
        store: the blob store, while the context is open.
    """

    def __init__(
        self,
        client: Callable[[], RegistryClient],
        store: Callable[[], BlobStore],
        display: Display,
        *,
        public: Callable[[], RegistryClient],
        verifier: BundleVerifier | None = None,
        private_images: bool = False,
    ) -> None:
        self._make_client = client
        self._make_store = store
        self._make_public = public
        self._verifier = verifier or BundleVerifier(None)
        self._display = display
        self._private_images = private_images

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._background = stack.enter_context(BackgroundLoop())
            self._client, self._public, self.store = self._background.submit(self._connect()).result()
            stack.callback(lambda: self._background.submit(self._disconnect()).result())
            self._resolver = Resolver(self._client, self._public, self.store, self._verifier, private_images=self._private_images)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    async def _connect(self) -> tuple[RegistryClient, RegistryClient, BlobStore]:
        return await self._make_client().__aenter__(), await self._make_public().__aenter__(), self._make_store()

    async def _disconnect(self) -> None:
        for client in (self._client, self._public):
            await client.__aexit__(None, None, None)

    def warnings(self) -> list[str]:
        """Return a line for each thing that the operator should know of registries, credentials and mirrors."""
        return self._client.warnings()

    def use(self) -> RegistryUse:
        """Return what was asked of registries so far."""
        return self._client.use()

    def tags(self, patterns: Iterable[Pattern]) -> list[list[str] | PublisherError]:
        """Return the tags of each pattern's repository, or why they are unknown; each repository is asked once."""
        patterns = list(patterns)
        repositories = list(dict.fromkeys(pattern.reference for pattern in patterns))
        if repositories:
            self._display.begin("listing tags of repositories", len(repositories))
        tags = dict(zip(repositories, self._for_all(repositories, self._client.tags), strict=True))
        return [tags[pattern.reference] for pattern in patterns]

    def resolve(self, entries: Iterable[Entry], records: Mapping[str, Record]) -> dict[str, ResolvedReference | PublisherError]:
        """Return CVMFS name -> resolved reference of each entry, or why it could not be resolved.

        Args:
            entries: the entries.
            records: what is published, so that what is known is not asked again.
        """
        entries = list(entries)
        self._display.begin("asking registries about images", len(entries))
        answers = self._for_all(entries, lambda entry: self._resolver.resolve(entry, records.get(entry.name)))
        return dict(zip([entry.name for entry in entries], answers, strict=True))

    def image_manifests(
        self, entries: Iterable[Entry], answers: Mapping[str, ResolvedReference | PublisherError]
    ) -> dict[str, dict[Platform, ImageManifest] | PublisherError]:
        """Return CVMFS name -> image manifest for each platform, or why it cannot be had, of the entries that were resolved."""
        answered = ((entry, answers[entry.name]) for entry in entries)
        resolved = [(entry, answer) for entry, answer in answered if isinstance(answer, ResolvedReference)]
        self._display.begin("reading image manifests", len(resolved))
        manifests = self._for_all(resolved, lambda pair: self._resolver.image_manifests(*pair))
        return dict(zip([entry.name for entry, _ in resolved], manifests, strict=True))

    def inspect(self, entries: Iterable[Entry]) -> dict[str, list[Image] | PublisherError]:
        """Return CVMFS name -> an image for each platform, or why there is none: image manifests and configs, no layers.

        They are fetched anonymously, unless an entry may be private.
        """
        entries = list(entries)
        self._display.begin("asking registries about images", len(entries))
        images = self._for_all(entries, self._resolver.inspect)
        return dict(zip([entry.name for entry in entries], images, strict=True))

    def sizes(self, items: Iterable[PlanItem]) -> dict[str, int]:
        """Return CVMFS name -> bytes of the layers of what has to be built, as far as image manifests in the store say."""
        return {item.entry.name: sum(map(self._layer_size, _wanted(item))) for item in items}

    def _layer_size(self, target: PlatformTarget) -> int:
        """Return the bytes of the layers of an image, 0 if that is not known without asking its registry."""
        with contextlib.suppress(PublisherError):
            body = self.store.document(target.digest)
            if body is not None:
                return sum(layer.size for layer in parse_manifest(body, target.digest).layers)
        return 0

    def fetch(self, item: PlanItem, *, layers: bool = True) -> Future[list[BuildRequest]]:
        """Start to fetch what has to be built for an item; the result has a request for each such platform.

        Without ``layers``, image manifests and configs alone are fetched, and the requests have no layers.

        Waiting for the result raises LayerError, BlobError, SpaceError or a RegistryError, see
        :func:`publisher.publish.fetch.fetch_layers`.
        """
        return self._background.submit(self._fetch(item, with_layers=layers))

    async def _fetch(self, item: PlanItem, *, with_layers: bool) -> list[BuildRequest]:
        name, requests = item.entry.name, []
        for target in _wanted(item):
            reference = item.entry.reference_for(target.platform)
            label = name if len(item.targets) == 1 else f"{name} {platform_key(target.platform)}"
            image = await fetch_image(self._client, self.store, reference, target.digest, plain(target.platform))
            stored: tuple[tuple[Path, ...], tuple[Path, ...]] = ((), ())
            if with_layers:
                show = partial(self._display.step, name, FETCH)
                stored = await fetch_layers(self._client, self.store, image, reference, show)
            private, sif = item.entry.private and self._private_images, image.is_sif or "sif" in item.entry.formats
            requests.append(BuildRequest(label, image, *stored, reference, private, sif, self.store.copies))
        return requests

    def with_layers(self, request: BuildRequest) -> BuildRequest:
        """Return a request with the layers of its image on this host.

        Raises:
            LayerError, BlobError, SpaceError, RegistryError: as :func:`publisher.publish.fetch.fetch_layers`.
        """
        return self._background.submit(self._fetch_layers(request)).result()

    async def _fetch_layers(self, request: BuildRequest) -> BuildRequest:
        if request.reference is None:
            raise AssertionError("every request of an intake has its reference")
        show = partial(self._display.step, request.name, FETCH)
        layers, indexes = await fetch_layers(self._client, self.store, request.image, request.reference, show)
        return replace(request, layers=layers, indexes=indexes)

    def _for_all(self, items: list[T], ask: Callable[[T], Coroutine[Any, Any, U]]) -> list[U | PublisherError]:
        """Return the answer for each item, or the error in its place; a bounded number is asked at a time."""
        return self._background.submit(self._gather(items, ask)).result()

    async def _gather(self, items: list[T], ask: Callable[[T], Coroutine[Any, Any, U]]) -> list[U | PublisherError]:
        slots = asyncio.Semaphore(_CONCURRENCY)

        async def attempt(item: T) -> U | PublisherError:
            async with slots:
                try:
                    return await ask(item)
                except PublisherError as error:
                    return error
                finally:
                    self._display.advance()

        return await asyncio.gather(*map(attempt, items))


def _wanted(item: PlanItem) -> list[PlatformTarget]:
    """Return the targets of an item that have to be built; two variants may be one image."""
    return list({target.digest: target for target in item.targets if target.published is None}.values())
