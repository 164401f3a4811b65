"""The registry client: what a tag points at, manifests, blobs and lists of tags, from any OCI distribution registry.

A body whose digest is not the one asked for is never handed out. Nothing an unreachable, overloaded or confused registry says
is mistaken for "there is no such image": that is a :class:`NotFoundError`, everything else an :class:`UnavailableError`.

A registry's mirrors are asked before it, in order, once each: whatever a mirror has no good answer to is asked of the next one
and at last of the registry itself, which alone can say that there is no such thing. As with containerd, a mirror may answer for
tags too, unless ``mirror_tags`` is off; lists of tags come from the registry alone, because a mirror may know but some.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import re
import time
import urllib.request
from typing import TYPE_CHECKING, Self, TypeVar

from publisher import oci
from publisher.errors import DeniedError, NotFoundError, PublisherError, RegistryError, UnavailableError
from publisher.net.proxies import Proxies
from publisher.net.retry import RetryPolicy
from publisher.registry import status, tag_pages
from publisher.registry.access import Access
from publisher.registry.authority import Authority
from publisher.registry.blob_transfer import BlobTransfer, SizeMismatchError
from publisher.registry.credentials import anonymous
from publisher.registry.endpoints import Endpoints
from publisher.registry.transport import RegistryTimeouts, RegistryTransport
from publisher.registry.warnings import RegistryWarnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from yarl import URL

    from publisher.contract.reference import Reference
    from publisher.registry.blob_transfer import Sink
    from publisher.registry.credentials import Credentials
    from publisher.registry.endpoints import Endpoint
    from publisher.registry.transport import RegistryResponse

T = TypeVar("T")

_ACCEPT = f"{oci.OCI_INDEX}, {oci.DOCKER_LIST}, {oci.OCI_MANIFEST}, {oci.DOCKER_MANIFEST}, */*"
"""As containerd asks; ``*/*`` so that what is not supported is refused by its name instead of being "not found"."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_BAD, _ABSENT, _NO_SUCH_METHOD = 400, 404, 405


class RegistryClient:
    """An asynchronous context manager; safe for many tasks of one event loop.

    Args:
        insecure: registries (exact ``host:port``) that speak plain http.
        mirrors: registry -> URLs of its mirrors; a path in one stands in front of the repositories' names (Harbor's projects).
        mirror_tags: mirrors say what tags point at, and not only what is behind digests.
        credentials: from a registry's or mirror's name to its credentials, None for nobody's.
        deadlines: how long connecting, waiting and whole requests may take.
        patience: what is tried again, and how often; and how much peace a registry may ask for before it is left alone.
        concurrency: requests in flight per registry, transfers of blobs included.
        rates: registry or mirror -> requests per second at most.
        clock: seconds, monotonic (for tokens' ends, rates and pauses).
    """

    def __init__(
        self,
        *,
        insecure: frozenset[str] = frozenset(),
        mirrors: Mapping[str, Sequence[str]] | None = None,
        mirror_tags: bool = True,
        credentials: Callable[[str], Credentials | None] = anonymous,
        deadlines: RegistryTimeouts | None = None,
        patience: RetryPolicy | None = None,
        concurrency: int = 64,
        rates: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoints = Endpoints(insecure, mirrors or {})
        self._mirror_tags = mirror_tags
        self._look_up = credentials
        self._deadlines = deadlines or RegistryTimeouts()
        self._patience = patience or RetryPolicy()
        self._concurrency = concurrency
        self._rates = rates or {}
        self._clock = clock
        self._notices = RegistryWarnings()
        self._mirrored: set[str] = set()

    async def __aenter__(self) -> Self:
        self._transport = RegistryTransport(self._deadlines, Proxies(urllib.request.getproxies_environment()))
        self._authority = Authority(self._transport, self._look_up, self._clock, self._notices)
        self._access = Access(
            self._transport,
            self._authority,
            self._patience,
            concurrency=self._concurrency,
            rates=self._rates,
            clock=self._clock,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._transport.close()

    def warnings(self) -> list[str]:
        """What the operator should know of what was seen so far, one line each, nothing secret in them.

        Credentials that are refused, have expired or do so within a week; mirrors that fail.
        """
        return self._notices.all()

    async def privileged(self, reference: Reference) -> bool:
        """Whether more may have been seen of a reference than everybody may see.

        So it is where credentials are configured for its registry, or mirrors were asked, whose own rights nobody knows: then a
        second client says whether the image is public, see :func:`publisher.registry.anonymous`. Elsewhere this client's answer
        says it already. Asks no registry.

        Raises:
            UsageError: a credential helper is missing or fails.
        """
        origin = self._endpoints.origin(reference.registry)
        mirrored = bool(self._endpoints.mirrors(reference.registry)) and self._from_mirrors(reference)
        return mirrored or await self._authority.credentials(origin) is not None

    async def head(self, reference: Reference) -> oci.Descriptor:
        """What a reference points at now: one HEAD, or a GET where the registry's HEAD does not tell the digest.

        Returns:
            Media type and digest of an index or manifest; the size is 0 where the registry does not say.

        Raises:
            NotFoundError, DeniedError, UnavailableError: as their names say.
        """
        target = reference.digest or reference.tag or "latest"

        async def attempt(endpoint: Endpoint) -> oci.Descriptor:
            found = await self._head(endpoint, reference, target)
            if found is None:
                media_type, body = await self._manifest(endpoint, reference, target)
                found = oci.Descriptor(media_type, _digest(body), len(body))
            if reference.digest not in (None, found.digest):
                raise UnavailableError(f"{endpoint.name} answers with {found.digest} for another digest")
            return found

        with about(reference):
            return await self._ask(reference, attempt, mirrored=self._from_mirrors(reference))

    async def tags(self, reference: Reference) -> list[str]:
        """All tags of a reference's repository, in the registry's order; its own tag and digest are not looked at.

        Raises:
            NotFoundError: the registry says in so many words that there is no such repository.
            DeniedError: it does not show it to us.
            UnavailableError: anything else, and never a part of the list.
        """
        origin, repository = self._endpoints.origin(reference.registry), reference.repository
        bare = origin.resource(repository, "tags/list")

        async def fetch(url: URL) -> tag_pages.Page:
            try:
                return await self._access.patiently(origin, lambda: self._page(origin, repository, url))
            except (NotFoundError, DeniedError) as error:
                if url.query.keys() - {"n"}:
                    raise UnavailableError(f"{error.reason}, after it had listed some tags of {repository}") from None
                raise

        with about(reference):
            try:
                async with asyncio.timeout(self._deadlines.listing):
                    try:
                        return await tag_pages.collect(bare.with_query(n=tag_pages.SIZE), fetch)
                    except _SizeError:
                        return await tag_pages.collect(bare, fetch)
            except TimeoutError:
                reason = f"{reference.registry} did not list the tags of {repository} within {self._deadlines.listing:.0f} s"
                raise UnavailableError(reason) from None

    async def manifest(self, reference: Reference, digest: str) -> tuple[str, bytes]:
        """Content-Type and body of the index or manifest with this digest, whatever tag or digest the reference has.

        Raises:
            BlobError: the registry gives another body, twice.
            NotFoundError, DeniedError, UnavailableError: as their names say.
        """

        async def attempt(endpoint: Endpoint) -> tuple[str, bytes]:
            media_type, body = await self._manifest(endpoint, reference, digest)
            if _digest(body) != digest:
                raise SizeMismatchError(f"{endpoint.name} gives a manifest that is not {digest}")
            return media_type, body

        with about(reference):
            try:
                return await self._ask(reference, attempt)
            except SizeMismatchError:
                return await self._ask(reference, attempt, mirrored=False)

    async def blob(self, reference: Reference, descriptor: oci.Descriptor, sink: Sink, offset: int = 0) -> None:
        """Hand a blob's bytes from ``offset`` on to ``sink``, in order and each once, whatever breaks on the way.

        The bytes are counted here; their digest is the receiver's business, who alone sees all of them. A blob that is asked for
        again does not come from a mirror again: what that gave was of no use.

        Raises:
            BlobError: there are more bytes than the descriptor says.
            NotFoundError, DeniedError: as their names say.
            UnavailableError: no progress any more, or slower than the slowest transfer allowed.
        """
        transfer = BlobTransfer(self._access, reference.repository, descriptor, sink, offset)
        mirrored = descriptor.digest not in self._mirrored
        if self._endpoints.mirrors(reference.registry):
            self._mirrored.add(descriptor.digest)
        allowed = self._deadlines.small + descriptor.size / self._deadlines.slowest
        with about(reference):
            try:
                async with asyncio.timeout(allowed):
                    await self._ask(reference, transfer.attempt, lambda: transfer.position, mirrored=mirrored)
            except TimeoutError:
                part = f"only {transfer.position} of {descriptor.size} bytes of a blob"
                raise UnavailableError(f"{reference.registry} gave {part} in {allowed:.0f} s") from None

    async def _ask(
        self,
        reference: Reference,
        attempt: Callable[[Endpoint], Awaitable[T]],
        gained: Callable[[], int] = lambda: 0,
        *,
        mirrored: bool = True,
    ) -> T:
        """The first good answer: of the mirrors, one try each, or of the registry itself."""
        for mirror in self._endpoints.mirrors(reference.registry) if mirrored else ():
            try:
                return await self._access.patiently(mirror, functools.partial(attempt, mirror), gained, hasty=True)
            except (NotFoundError, DeniedError):
                continue
            except (RegistryError, SizeMismatchError) as error:
                text = f"the mirror {mirror.name} fails, and {reference.registry} is asked itself: {error.reason}"
                self._notices.add(f"{mirror.name} mirror", text)
        origin = self._endpoints.origin(reference.registry)
        return await self._access.patiently(origin, lambda: attempt(origin), gained)

    def _from_mirrors(self, reference: Reference) -> bool:
        """Whether mirrors may say what a reference points at."""
        return self._mirror_tags or reference.digest is not None

    async def _head(self, endpoint: Endpoint, reference: Reference, target: str) -> oci.Descriptor | None:
        headers, path = {"Accept": _ACCEPT}, f"manifests/{target}"
        async with self._access.open("HEAD", endpoint, reference.repository, path, headers) as answer:
            if answer.status == _NO_SUCH_METHOD or (answer.status == _ABSENT and not status.says_registry(answer)):
                return None
            await status.check(answer, endpoint.name, _named(reference, target))
            digest = answer.headers.get("Docker-Content-Digest", "")
            if not _DIGEST.fullmatch(digest):
                return None
            length = answer.headers.get("Content-Length", "0")
            return oci.Descriptor(_media_type(answer), digest, int(length) if length.isdecimal() else 0)

    async def _manifest(self, endpoint: Endpoint, reference: Reference, target: str) -> tuple[str, bytes]:
        headers, path = {"Accept": _ACCEPT}, f"manifests/{target}"
        async with self._access.open("GET", endpoint, reference.repository, path, headers, pull=True) as answer:
            await status.check(answer, endpoint.name, _named(reference, target))
            return _media_type(answer), await answer.body(oci.MANIFEST_LIMIT)

    async def _page(self, origin: Endpoint, repository: str, url: URL) -> tag_pages.Page:
        async with self._access.open("GET", origin, repository, url, {"Accept": "application/json"}) as answer:
            if answer.status == _BAD and set(url.query) == {"n"}:
                raise _SizeError(f"{origin.name} does not list {tag_pages.SIZE} tags at a time")
            await status.check(answer, origin.name, f"tags of {repository}", in_words=True)
            body = await answer.body(tag_pages.PAGE_LIMIT)
            return tag_pages.parse(body, origin.name, tag_pages.following(url, answer.headers.getall("Link", [])))


class _SizeError(UnavailableError):
    """A registry that has an upper limit on pages, and refuses instead of giving less (distribution 3)."""


def _media_type(answer: RegistryResponse) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()


def _named(reference: Reference, target: str) -> str:
    return f"{reference.repository}{'@' if ':' in target else ':'}{target}"


def _digest(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


@contextlib.contextmanager
def about(reference: Reference) -> Iterator[None]:
    """Errors that leave here say which image they are about."""
    try:
        yield
    except PublisherError as error:
        error.image = error.image or str(reference)
        raise
