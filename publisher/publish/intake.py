"""From registries to builds: what each reference means now, and the layers of what has to be built.

The network runs in the background; both calls return to a program that works in plain order.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self, TypeVar

from publisher import oci
from publisher.build.builder import BuildRequest
from publisher.errors import DeniedError, NotFoundError, PublisherError, UnavailableError, UnsupportedError
from publisher.net.loop import BackgroundLoop
from publisher.plan.model import ResolvedReference
from publisher.publish import resolve
from publisher.state.paths import platform_key

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from concurrent.futures import Future
    from types import TracebackType

    from publisher.contract.records import Record
    from publisher.images.reader import Entry, Pattern
    from publisher.oci import Platform
    from publisher.plan.model import PlanItem
    from publisher.registry.blobs.store import BlobStore
    from publisher.registry.client import RegistryClient
    from publisher.system.progress import Display

T = TypeVar("T")
U = TypeVar("U")

_AT_ONCE = 256  # references under way; each registry's own share is the client's business


class Intake:
    """A context manager around the connections to all registries.

    Args:
        client: makes the registry client; called in the background's loop.
        store: makes the store for blobs, likewise.
        display: where progress goes.
        public: makes a client without credentials and mirrors: what it sees, everybody sees.
        private_images: what cannot be pulled by everybody may be published, where its entry says so too.
    """

    def __init__(
        self,
        client: Callable[[], RegistryClient],
        store: Callable[[], BlobStore],
        display: Display,
        *,
        public: Callable[[], RegistryClient],
        private_images: bool = False,
    ) -> None:
        self._make_client = client
        self._make_store = store
        self._make_public = public
        self._display = display
        self._private_images = private_images

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._background = stack.enter_context(BackgroundLoop())
            self._client, self._public, self.store = self._background.submit(self._connect()).result()
            stack.callback(lambda: self._background.submit(self._disconnect()).result())
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
        """What the operator should know of registries, credentials and mirrors, a line each."""
        return self._client.warnings()

    # --- which tags there are

    def tags(self, patterns: Iterable[Pattern]) -> list[list[str] | PublisherError]:
        """The tags that each pattern's repository has, or why nobody knows them; each repository is asked once."""
        return self._background.submit(self._tags_of_all(list(patterns))).result()

    async def _tags_of_all(self, patterns: list[Pattern]) -> list[list[str] | PublisherError]:
        repositories = list(dict.fromkeys(pattern.reference for pattern in patterns))
        if repositories:
            self._display.begin("listing tags of repositories", len(repositories))
        found = dict(zip(repositories, await self._at_once(repositories, self._client.tags), strict=True))
        return [found[pattern.reference] for pattern in patterns]

    async def _at_once(self, things: list[T], ask: Callable[[T], Coroutine[Any, Any, U]]) -> list[U | PublisherError]:
        """What was asked of each, or the error in its place; a bounded number of them at a time."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(thing: T) -> U | PublisherError:
            async with places:
                try:
                    return await ask(thing)
                except PublisherError as error:
                    return error
                finally:
                    self._display.advance()

        return await asyncio.gather(*map(one, things))

    # --- what references mean

    def ask(self, entries: Iterable[Entry], records: Mapping[str, Record]) -> dict[str, ResolvedReference | PublisherError]:
        """What each entry's reference means now: one HEAD each, and a GET for an index or image not seen before.

        Args:
            entries: the entries.
            records: what is published, so that what is known is not asked for.

        Returns:
            CVMFS name -> answer, or why there is none.
        """
        wanted = list(entries)
        self._display.begin("asking registries about images", len(wanted))
        return self._background.submit(self._ask_all(wanted, records)).result()

    async def _ask_all(
        self, entries: list[Entry], records: Mapping[str, Record]
    ) -> dict[str, ResolvedReference | PublisherError]:
        answers = await self._at_once(entries, lambda entry: self._answer(entry, records.get(entry.name)))
        return dict(zip([entry.name for entry in entries], answers, strict=True))

    async def _answer(self, entry: Entry, record: Record | None) -> ResolvedReference:
        reference = entry.reference
        digest = reference.digest or (await self._client.head(reference)).digest
        known = _known(record, entry.platforms)
        if set(known.values()) == {digest} and len(known) == len(entry.platforms):
            return ResolvedReference(digest, known)  # no index: the very manifest that is published
        if record is None or record.digest != digest:
            await self._check_public(entry)
        try:
            media_type, body = await resolve.manifest(self._client, self.store, reference, digest)
            if oci.kind_of(media_type, body) is oci.Kind.INDEX:
                return _of_index(digest, oci.parse_index(body), entry.platforms)
            return await self._of_one(entry, digest)
        except NotFoundError as error:
            if reference.digest is not None:
                raise
            raise UnavailableError(f"{reference.registry} has the tag, but not what it means: {error.reason}") from error

    async def _of_one(self, entry: Entry, digest: str) -> ResolvedReference:
        """A tag that means one manifest: which platform that is for, its config says."""
        reasons = []
        for platform in entry.platforms:
            try:
                image = await resolve.resolve(self._client, self.store, entry.reference, digest, platform)
            except UnsupportedError as error:
                reasons.append(error)
            else:
                return ResolvedReference(digest, {platform: digest}, (str(image.platform),))
        raise reasons[0]

    async def _check_public(self, entry: Entry) -> None:
        """Refuse what credentials of ours, or a mirror, let us see and others not.

        Raises:
            DeniedError: it is private, and not said to be allowed by both the list and the operator.
            UnavailableError: nobody can tell.
        """
        if (entry.private and self._private_images) or not await self._client.privileged(entry.reference):
            return
        try:
            await self._public.head(entry.reference)
        except (DeniedError, NotFoundError) as error:
            hint = "the operator's private_images and the entry's private: allowed" if entry.private else "make it public"
            raise DeniedError(f"not everybody can pull it: {error.reason}", hint=hint) from None

    def manifests(
        self, entries: Iterable[Entry], answers: Mapping[str, ResolvedReference | PublisherError]
    ) -> dict[str, dict[Platform, oci.ImageManifest] | PublisherError]:
        """The manifest of each platform of each entry that has an answer; those that the store has are not asked for again."""
        pairs = ((entry, answers[entry.name]) for entry in entries)
        wanted = [(entry, answer) for entry, answer in pairs if isinstance(answer, ResolvedReference)]
        self._display.begin("reading manifests", len(wanted))
        found = self._background.submit(self._at_once(wanted, self._manifests)).result()
        return dict(zip([entry.name for entry, _ in wanted], found, strict=True))

    async def _manifests(self, wanted: tuple[Entry, ResolvedReference]) -> dict[Platform, oci.ImageManifest]:
        entry, answer = wanted
        found = {}
        for platform, digest in answer.digests.items():
            _, body = await resolve.manifest(self._client, self.store, entry.reference, digest)
            found[platform] = oci.parse_manifest(body, digest)
        return found

    # --- looking at images without building them

    def inspect(self, entries: Iterable[Entry]) -> dict[str, list[oci.Image] | PublisherError]:
        """An image for each platform of each entry, or why there is none: manifests and configs, no layers.

        Asked without credentials, as everybody would, but for entries that may be private.
        """
        wanted = list(entries)
        self._display.begin("asking registries about images", len(wanted))
        found = self._background.submit(self._at_once(wanted, self._inspect)).result()
        return dict(zip([entry.name for entry in wanted], found, strict=True))

    async def _inspect(self, entry: Entry) -> list[oci.Image]:
        client = self._client if entry.private and self._private_images else self._public
        digest = entry.reference.digest or (await client.head(entry.reference)).digest
        return [await resolve.resolve(client, self.store, entry.reference, digest, platform) for platform in entry.platforms]

    # --- what has to be built

    def fetch(self, item: PlanItem) -> Future[list[BuildRequest]]:
        """Start to fetch all that has to be built for an item; one request for each platform.

        The result raises LayerError, BlobError, SpaceError and what registries answer, see :func:`publisher.publish.resolve.layers`.
        """
        return self._background.submit(self._fetch(item))

    async def _fetch(self, item: PlanItem) -> list[BuildRequest]:
        name, reference = item.entry.name, item.entry.reference
        requests = []
        for target in item.targets:
            if target.published is not None:
                continue
            label = name if len(item.targets) == 1 else f"{name} {platform_key(target.platform)}"
            image = await resolve.resolve(self._client, self.store, reference, target.digest, target.platform)
            layers, indexes = await resolve.layers(
                self._client, self.store, image, reference, lambda done, total: self._display.step(name, "fetch", done, total)
            )
            requests.append(BuildRequest(label, image, layers, indexes))
        return requests


def _known(record: Record | None, platforms: Iterable[Platform]) -> dict[Platform, str]:
    """Platform -> digest of the manifest that is current under a name."""
    if record is None:
        return {}
    current = {platform: record.current(platform_key(platform)) for platform in platforms}
    return {platform: version.digest for platform, version in current.items() if version is not None}


def _of_index(digest: str, descriptors: tuple[oci.Descriptor, ...], platforms: Iterable[Platform]) -> ResolvedReference:
    manifests = {}
    for platform in platforms:
        with contextlib.suppress(UnsupportedError):
            manifests[platform] = oci.choose_platform(descriptors, platform).digest
    offered = sorted({str(descriptor.platform) for descriptor in descriptors if descriptor.platform is not None})
    return ResolvedReference(digest, manifests, tuple(offered))
