"""The registry client: digests, image manifests, blobs and lists of tags from any registry of the OCI distribution specification.

Content that does not match its digest is never returned. Whatever an unreachable, overloaded or broken registry answers is never
mistaken for "the image does not exist": that is a :class:`NotFoundError`, everything else an :class:`UnavailableError`.

The mirrors of a registry are asked first, in order and once each. If no mirror has a good answer, the registry itself is asked;
only the registry can say that an image does not exist. As in containerd, mirrors also resolve tags, unless ``mirror_tags`` is
off. Lists of tags come from the registry alone, because a mirror may know only some tags.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import re
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from publisher import oci
from publisher.contract.units import format_size
from publisher.errors import DeniedError, NotFoundError, PublisherError, RegistryError, UnavailableError
from publisher.images.sif_sources import is_url
from publisher.net.addresses import AddressPolicy
from publisher.net.proxies import Proxies
from publisher.net.retry import RetryPolicy, TransientError
from publisher.net.server_dates import ServerDates
from publisher.registry import status, tag_pages
from publisher.registry.access import Access
from publisher.registry.authority import Authority
from publisher.registry.blob_transfer import BlobTransfer, MismatchError
from publisher.registry.credentials import anonymous
from publisher.registry.endpoints import Endpoints
from publisher.registry.sif_files.files import SifFileClient
from publisher.registry.transport import RegistryTimeouts, RegistryTransport
from publisher.registry.warnings import RegistryWarnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
    from types import TracebackType

    from yarl import URL

    from publisher.contract.reference import Reference
    from publisher.net.addresses import Network
    from publisher.registry.blob_transfer import Sink
    from publisher.registry.credentials import Credentials
    from publisher.registry.endpoints import Endpoint
    from publisher.registry.transport import RegistryResponse

T = TypeVar("T")

_ACCEPT = f"{oci.OCI_INDEX}, {oci.DOCKER_LIST}, {oci.OCI_MANIFEST}, {oci.DOCKER_MANIFEST}, */*"
"""The types that containerd accepts, and ``*/*``, so that an unsupported image is reported as such instead of as "not found"."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_REFERRER_PAGES = 10
_OK, _BAD_REQUEST, _NOT_FOUND, _METHOD_NOT_ALLOWED = 200, 400, 404, 405


@dataclass(frozen=True)
class RegistryUse:
    """What was asked of registries and mirrors.

    Attributes:
        requests: name -> number of requests.
        remaining: name -> pulls that its limit still allows, of those that say so.
        received: bytes of all blobs.
    """

    requests: Mapping[str, int]
    remaining: Mapping[str, float]
    received: int


class RegistryClient:
    """A client for all registries: an asynchronous context manager that many tasks of one event loop may use.

    Args:
        insecure: registries (exact ``host:port``) that use plain http.
        mirrors: registry -> URLs of its mirrors; a path in a URL precedes the names of repositories, as in Harbor's projects.
        mirror_tags: whether mirrors may resolve tags, and not only digests.
        credentials: returns the credentials for a registry's or mirror's name, None for no credentials.
        timeouts: how long requests may take.
        retry: the retry policy, with the longest ``Retry-After`` that is waited for.
        concurrency: concurrent requests per registry, transfers of blobs included.
        rates: registry or mirror -> requests per second.
        networks: networks to which requests may be sent although their addresses are not public; insecure registries and
            mirrors may have any address.
        discreet: errors about other registries do not tell what happened to the connection, see :class:`AddressPolicy`.
        clock: returns seconds, monotonic; for the expiry of tokens, rate limits and suspensions.
        dates: gets the dates of registries' and mirrors' responses.
        federation: the federation that SIFs at ``osdf:///`` are read from.
    """

    def __init__(
        self,
        *,
        insecure: frozenset[str] = frozenset(),
        mirrors: Mapping[str, Sequence[str]] | None = None,
        mirror_tags: bool = True,
        credentials: Callable[[str], Credentials | None] = anonymous,
        timeouts: RegistryTimeouts | None = None,
        retry: RetryPolicy | None = None,
        concurrency: int = 64,
        rates: Mapping[str, float] | None = None,
        networks: Collection[Network] = (),
        discreet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        dates: ServerDates | None = None,
        federation: str = "osg-htc.org",
    ) -> None:
        self._endpoints = Endpoints(insecure, mirrors or {})
        self._insecure = insecure
        self._federation = federation
        self._policy = AddressPolicy(self._endpoints.configured(), networks, discreet=discreet)
        self._mirror_tags = mirror_tags
        self._look_up = credentials
        self._timeouts = timeouts or RegistryTimeouts()
        self._retry = retry or RetryPolicy()
        self._concurrency = concurrency
        self._rates = rates or {}
        self._clock = clock
        self._dates = dates or ServerDates()
        self._warnings = RegistryWarnings()
        self._mirrored_blobs: set[str] = set()
        self._received = 0

    async def __aenter__(self) -> Self:
        self._transport = RegistryTransport(self._timeouts, Proxies(urllib.request.getproxies_environment()), self._policy)
        self._files = SifFileClient(
            self._transport, self._retry, self._timeouts, insecure=self._insecure, federation=self._federation
        )
        self._authority = Authority(self._transport, self._look_up, self._clock, self._warnings)
        self._access = Access(
            self._transport,
            self._authority,
            self._retry,
            concurrency=self._concurrency,
            rates=self._rates,
            clock=self._clock,
            dates=self._dates,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._transport.close()

    def warnings(self) -> list[str]:
        """Return warnings for the operator, one line each and without secrets.

        They are about credentials that are refused, have expired or expire within a week, and about mirrors that fail.
        """
        return self._warnings.all()

    def use(self) -> RegistryUse:
        """Return what was asked so far."""
        return RegistryUse(*self._access.use(), self._received)

    async def sees_private_images(self, reference: Reference) -> bool:
        """Return whether this client may see more of a reference than the public. No registry is asked.

        It may if credentials are configured for the registry, or if mirrors are asked, whose own access rights are unknown. A
        client without credentials then has to decide whether the image is public, see
        :func:`publisher.registry.credentials.anonymous`.

        Raises:
            UsageError: a credential helper is missing or fails.
        """
        if is_url(reference):
            return False
        origin = self._endpoints.origin(reference.registry)
        uses_mirrors = bool(self._endpoints.mirrors(reference.registry)) and self._mirrors_resolve(reference)
        return uses_mirrors or await self._authority.credentials(origin) is not None

    async def head(self, reference: Reference) -> oci.Descriptor:
        """Return the descriptor that a reference points at now, with one HEAD; or with a GET if the HEAD names no digest.

        Returns:
            Media type and digest of an index or image manifest; the size is 0 if the registry does not name it.

        Raises:
            NotFoundError: the image does not exist.
            DeniedError: the registry denies access.
            UnavailableError: the registry gave no usable answer.
        """
        if is_url(reference):
            with image_in_errors(reference):
                return await self._files.head(reference)
        target = reference.digest or reference.tag or "latest"

        async def attempt(endpoint: Endpoint) -> oci.Descriptor:
            descriptor = await self._head(endpoint, reference, target)
            if descriptor is None:
                media_type, body = await self._get_manifest(endpoint, reference, target)
                descriptor = oci.Descriptor(media_type, _digest(body), len(body))
            if reference.digest not in (None, descriptor.digest):
                raise UnavailableError(f"{endpoint.name} answered with {descriptor.digest} instead of the requested digest")
            return descriptor

        with image_in_errors(reference):
            return await self._ask(reference, attempt, use_mirrors=self._mirrors_resolve(reference))

    async def tags(self, reference: Reference) -> list[str]:
        """Return all tags of a reference's repository, in the registry's order. The reference's own tag and digest are ignored.

        Raises:
            NotFoundError: the registry says explicitly that the repository does not exist.
            DeniedError: the registry denies access.
            UnavailableError: the complete list is not available.
        """
        origin, repository = self._endpoints.origin(reference.registry), reference.repository
        url_without_size = origin.resource(repository, "tags/list")

        async def fetch(url: URL) -> tag_pages.Page:
            try:
                return await self._access.run(origin, lambda: self._get_page(origin, repository, url))
            except (NotFoundError, DeniedError) as error:
                if url.query.keys() - {"n"}:
                    raise UnavailableError(f"{error.reason}, after it listed some tags of {repository}") from None
                raise

        with image_in_errors(reference):
            try:
                async with asyncio.timeout(self._timeouts.listing):
                    try:
                        return await tag_pages.collect(url_without_size.with_query(n=tag_pages.SIZE), fetch)
                    except _PageSizeError:
                        return await tag_pages.collect(url_without_size, fetch)
            except TimeoutError:
                reason = f"{reference.registry} did not list the tags of {repository} within {self._timeouts.listing:.0f} s"
                raise UnavailableError(reason) from None

    async def manifest(self, reference: Reference, digest: str) -> tuple[str, bytes]:
        """Return the Content-Type and body of the index or image manifest with a digest.

        Args:
            reference: names the registry and repository; its tag and digest are ignored.
            digest: the digest.

        Raises:
            BlobError: the registry sent other content, twice.
            NotFoundError: the image manifest does not exist.
            DeniedError: the registry denies access.
            UnavailableError: the registry gave no usable answer.
        """

        async def attempt(endpoint: Endpoint) -> tuple[str, bytes]:
            media_type, body = await self._get_manifest(endpoint, reference, digest)
            if _digest(body) != digest:
                raise MismatchError(f"{endpoint.name} sent a manifest that does not match {digest}")
            return media_type, body

        with image_in_errors(reference):
            try:
                return await self._ask(reference, attempt)
            except MismatchError:
                return await self._ask(reference, attempt, use_mirrors=False)

    async def referrers(self, reference: Reference, digest: str) -> list[bytes] | None:
        """Return the pages (image indexes) of what the registry lists as attached to a digest; None if it keeps no such lists.

        The registry itself is asked, once: neither a mirror nor a retry, because an image can be published without this list.

        Raises:
            UnavailableError: the registry gave no usable answer.
        """
        origin, repository = self._endpoints.origin(reference.registry), reference.repository
        url: URL | None = origin.resource(repository, f"referrers/{digest}")
        pages: list[bytes] = []
        try:
            while url is not None and len(pages) < _REFERRER_PAGES:
                async with self._access.open("GET", origin, repository, url, {"Accept": oci.OCI_INDEX}) as response:
                    status.raise_if_transient(response)
                    if response.status != _OK or _media_type(response) != oci.OCI_INDEX:
                        return pages or None
                    pages.append(await response.body(oci.MANIFEST_LIMIT))
                    url = tag_pages.next_page(url, response.headers.getall("Link", []))
        except DeniedError:
            return None
        except TransientError as error:
            raise UnavailableError(f"what is attached to the image is unknown: {error.reason}", image=str(reference)) from error
        return pages

    async def blob(self, reference: Reference, descriptor: oci.Descriptor, sink: Sink, offset: int = 0) -> None:
        """Pass a blob's bytes from ``offset`` on to ``sink``, in order and each once, across interruptions.

        The bytes are counted, but their digest is not checked: only the receiver has all of them. A blob that is requested a
        second time does not come from a mirror, because the mirror's bytes were wrong.

        Raises:
            BlobError: there are more bytes than the descriptor says.
            NotFoundError: the blob does not exist.
            DeniedError: the registry denies access.
            UnavailableError: the transfer makes no progress, or is slower than the slowest allowed one.
        """
        if is_url(reference):
            with image_in_errors(reference):
                await self._files.download(reference, descriptor, sink, offset)
            self._received += descriptor.size - offset
            return
        transfer = BlobTransfer(self._access, reference.repository, descriptor, sink, offset)
        use_mirrors = descriptor.digest not in self._mirrored_blobs
        if self._endpoints.mirrors(reference.registry):
            self._mirrored_blobs.add(descriptor.digest)
        timeout = self._timeouts.small + descriptor.size / self._timeouts.slowest
        with image_in_errors(reference):
            try:
                async with asyncio.timeout(timeout):
                    await self._ask(reference, transfer.attempt, lambda: transfer.position, use_mirrors=use_mirrors)
            except TimeoutError:
                part = f"only {format_size(transfer.position)} of a blob of {format_size(descriptor.size)}"
                raise UnavailableError(f"{reference.registry} sent {part} in {timeout:.0f} s") from None
            finally:
                self._received += transfer.position - offset

    async def _ask(
        self,
        reference: Reference,
        attempt: Callable[[Endpoint], Awaitable[T]],
        progress: Callable[[], int] = lambda: 0,
        *,
        use_mirrors: bool = True,
    ) -> T:
        """Return the first good result: of the mirrors with one try each, or of the registry itself with retries."""
        for mirror in self._endpoints.mirrors(reference.registry) if use_mirrors else ():
            try:
                return await self._access.run(mirror, functools.partial(attempt, mirror), progress, single_attempt=True)
            except (NotFoundError, DeniedError):
                continue
            except (RegistryError, MismatchError) as error:
                text = f"the mirror {mirror.name} failed, so {reference.registry} itself was asked: {error.reason}"
                self._warnings.add(f"{mirror.name} mirror", text)
        origin = self._endpoints.origin(reference.registry)
        return await self._access.run(origin, lambda: attempt(origin), progress)

    def _mirrors_resolve(self, reference: Reference) -> bool:
        """Return whether mirrors may resolve a reference."""
        return self._mirror_tags or reference.digest is not None

    async def _head(self, endpoint: Endpoint, reference: Reference, target: str) -> oci.Descriptor | None:
        """Return the descriptor of a tag or digest; None if the endpoint does not support HEAD or names no digest."""
        headers, path = {"Accept": _ACCEPT}, f"manifests/{target}"
        async with self._access.open("HEAD", endpoint, reference.repository, path, headers) as response:
            is_unclear = response.status == _NOT_FOUND and not status.is_from_registry(response)
            if response.status == _METHOD_NOT_ALLOWED or is_unclear:
                return None
            await status.check(response, endpoint.name, _image_name(reference, target))
            digest = response.headers.get("Docker-Content-Digest", "")
            if not _DIGEST.fullmatch(digest):
                return None
            length = response.headers.get("Content-Length", "0")
            return oci.Descriptor(_media_type(response), digest, int(length) if length.isdecimal() else 0)

    async def _get_manifest(self, endpoint: Endpoint, reference: Reference, target: str) -> tuple[str, bytes]:
        headers, path = {"Accept": _ACCEPT}, f"manifests/{target}"
        async with self._access.open("GET", endpoint, reference.repository, path, headers, pull=True) as response:
            await status.check(response, endpoint.name, _image_name(reference, target))
            return _media_type(response), await response.body(oci.MANIFEST_LIMIT)

    async def _get_page(self, origin: Endpoint, repository: str, url: URL) -> tag_pages.Page:
        async with self._access.open("GET", origin, repository, url, {"Accept": "application/json"}) as response:
            if response.status == _BAD_REQUEST and set(url.query) == {"n"}:
                raise _PageSizeError(f"{origin.name} does not list {tag_pages.SIZE} tags at a time")
            await status.check(response, origin.name, f"tags of {repository}", needs_error_code=True)
            body = await response.body(tag_pages.PAGE_LIMIT)
            return tag_pages.parse(body, origin.name, tag_pages.next_page(url, response.headers.getall("Link", [])))


class _PageSizeError(UnavailableError):
    """The registry limits the size of pages and refuses larger ones instead of sending fewer tags (distribution 3)."""


def _media_type(response: RegistryResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip()


def _image_name(reference: Reference, target: str) -> str:
    return f"{reference.repository}{'@' if ':' in target else ':'}{target}"


def _digest(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


@contextlib.contextmanager
def image_in_errors(reference: Reference) -> Iterator[None]:
    """Add the image to every error that leaves the block."""
    try:
        yield
    except PublisherError as error:
        error.image = error.image or str(reference)
        raise
