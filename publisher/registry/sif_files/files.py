"""SIFs at URLs: their size, and their bytes in order and each once, across interruptions.

They are fetched without credentials, so that nothing is published that only the publisher can read. Redirects are followed as
those of registries are: to allowed addresses only.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from yarl import URL

from publisher.contract.units import format_size
from publisher.errors import BlobError, DeniedError, NotFoundError, UnavailableError
from publisher.images.sif_sources import OSDF
from publisher.net.retry import TransientError
from publisher.oci import SIF_LAYER, Descriptor
from publisher.registry.sif_files.federation import FederationReader
from publisher.registry.status import raise_if_transient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from publisher.contract.reference import Reference
    from publisher.net.retry import RetryPolicy
    from publisher.registry.transport import RegistryResponse, RegistryTimeouts, RegistryTransport

    Sink = Callable[[bytes], Awaitable[None]]

_OK, _PARTIAL_CONTENT = 200, 206
_DENIED, _NOT_FOUND = (401, 403), (404, 410)


class SifFileClient:
    """A client for SIFs at any URL.

    Args:
        transport: sends requests.
        retry: the retry policy.
        timeouts: how long requests may take.
        insecure: servers (exact ``host:port``) that use plain http.
        federation: ``host`` or ``host:port`` of the federation that ``osdf:///`` stands for.
    """

    def __init__(
        self,
        transport: RegistryTransport,
        retry: RetryPolicy,
        timeouts: RegistryTimeouts,
        *,
        insecure: Collection[str],
        federation: str,
    ) -> None:
        self._transport = transport
        self._retry = retry
        self._timeouts = timeouts
        self._insecure = insecure
        self._federation = FederationReader(transport, federation, insecure)

    async def head(self, reference: Reference) -> Descriptor:
        """Return the descriptor of a SIF: its digest, which the reference has, and its size.

        Raises:
            NotFoundError: there is no such file.
            DeniedError: the server denies access.
            UnavailableError: the server gave no usable answer, or does not say how large the file is.
        """

        async def attempt() -> Descriptor:
            async with self._transport.open("HEAD", await self._url(reference), {}) as response:
                _check(response, reference)
                size = response.headers.get("Content-Length", "")
            if not size.isdecimal():
                raise UnavailableError(f"{response.host} does not say how large {reference.repository} is (Content-Length)")
            return Descriptor(SIF_LAYER, reference.digest or "", int(size))

        return await self._retry.run(attempt)

    async def download(self, reference: Reference, descriptor: Descriptor, sink: Sink, offset: int = 0) -> None:
        """Pass the bytes of a SIF from ``offset`` on to ``sink``; the receiver checks their digest.

        Raises:
            BlobError: there are more bytes than the descriptor says.
            NotFoundError, DeniedError, UnavailableError: as :meth:`head`; or the transfer is slower than the slowest allowed one.
        """
        transfer = _Transfer(descriptor, sink, offset)

        async def attempt() -> None:
            await self._receive(reference, transfer)

        timeout = self._timeouts.small + descriptor.size / self._timeouts.slowest
        try:
            async with asyncio.timeout(timeout):
                await self._retry.run(attempt, lambda: transfer.position)
        except TimeoutError:
            part = f"only {format_size(transfer.position)} of {format_size(descriptor.size)}"
            raise UnavailableError(f"the server of {reference} sent {part} in {timeout:.0f} s") from None

    async def _receive(self, reference: Reference, transfer: _Transfer) -> None:
        headers = {"Range": f"bytes={transfer.position}-"} if transfer.position else {}
        async with self._transport.open("GET", await self._url(reference), headers, small=False) as response:
            _check(response, reference)
            if response.status == _OK:
                transfer.begin_again()
            elif not re.match(rf"bytes {transfer.position}-", response.headers.get("Content-Range", "")):
                raise UnavailableError(f"{response.host} sent another part of {reference.repository} than was requested")
            while chunk := await response.read():
                await transfer.take(chunk, response.host)
        if not transfer.is_complete:
            raise TransientError(f"{response.host} sent only {transfer.position} bytes of {reference.repository}")

    async def _url(self, reference: Reference) -> URL:
        if reference.scheme == OSDF:
            return await self._federation.url(f"/{reference.repository}")
        scheme = "http" if reference.registry in self._insecure else "https"
        return URL(f"{scheme}://{reference.registry}/{reference.repository}", encoded=True)


class _Transfer:
    """The bytes of one SIF that have arrived.

    Attributes:
        position: the offset of the next byte that the sink receives.
    """

    def __init__(self, descriptor: Descriptor, sink: Sink, offset: int) -> None:
        self.position = offset
        self._descriptor = descriptor
        self._sink = sink
        self._to_skip = 0

    @property
    def is_complete(self) -> bool:
        return self.position >= self._descriptor.size

    def begin_again(self) -> None:
        """Expect the bytes from the first one on; those that the sink has are skipped."""
        self._to_skip = self.position

    async def take(self, chunk: bytes, host: str) -> None:
        """Pass on what the sink does not have yet. Raises BlobError if there is more than the descriptor says."""
        new, self._to_skip = chunk[self._to_skip :], max(0, self._to_skip - len(chunk))
        if self.position + len(new) > self._descriptor.size:
            raise BlobError(f"{host} sent more than the {self._descriptor.size} bytes of {self._descriptor.digest}")
        self.position += len(new)
        if new:
            await self._sink(new)


def _check(response: RegistryResponse, reference: Reference) -> None:
    """Raise the error that a response's status means, unless it has the file."""
    if response.status in {_OK, _PARTIAL_CONTENT}:
        return
    raise_if_transient(response)
    if response.status in _DENIED:
        raise DeniedError(f"{response.host} denies access to {reference.repository}")
    if response.status in _NOT_FOUND:
        raise NotFoundError(f"{response.host} has no {reference.repository}")
    raise UnavailableError(f"{response.host} answered {response.status} to a request for {reference.repository}")
