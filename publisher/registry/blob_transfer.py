"""The transfer of a blob: its bytes in order and each once, across interruptions and from any endpoint."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from publisher.errors import BlobError, UnavailableError
from publisher.net.retry import TransientError
from publisher.registry import status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from publisher import oci
    from publisher.registry.access import Access
    from publisher.registry.endpoints import Endpoint
    from publisher.registry.transport import RegistryResponse

    Sink = Callable[[bytes], Awaitable[None]]

_log = logging.getLogger(__name__)

_OK, _PARTIAL_CONTENT = 200, 206


class MismatchError(BlobError):
    """An endpoint sent other content than was requested; another endpoint may have the right content."""


class BlobTransfer:
    """The transfer of one blob.

    Args:
        access: sends the requests.
        repository: the blob's repository.
        descriptor: the blob's digest and size.
        sink: receives the bytes.
        position: the offset at which the transfer begins.

    Attributes:
        position: the offset of the next byte that the sink receives.
    """

    def __init__(self, access: Access, repository: str, descriptor: oci.Descriptor, sink: Sink, position: int) -> None:
        self._access = access
        self._repository = repository
        self._descriptor = descriptor
        self._sink = sink
        self._attempts = 0
        self.position = position

    async def attempt(self, endpoint: Endpoint) -> None:
        """Transfer the rest of the blob.

        Raises:
            TransientError: the transfer was interrupted.
            MismatchError: there are more bytes than the descriptor says.
            DeniedError, NotFoundError, UnavailableError: as :func:`publisher.registry.status.check`.
        """
        size = self._descriptor.size
        self._attempts += 1
        if self._attempts > 1:
            _log.info("retrying blob %s from %s at byte %d of %d", self._descriptor.digest, endpoint.name, self.position, size)
        if self.position < size:
            await self._receive(endpoint)
        if self.position < size:
            raise TransientError(f"{endpoint.name} sent only {self.position} of the {size} bytes of a blob")

    async def _receive(self, endpoint: Endpoint) -> None:
        position, digest = self.position, self._descriptor.digest
        headers = {"Range": f"bytes={position}-"} if position else {}
        async with self._access.open("GET", endpoint, self._repository, f"blobs/{digest}", headers, small=False) as response:
            await status.check(response, endpoint.name, f"blob {digest}", (_OK, _PARTIAL_CONTENT))
            if response.status == _PARTIAL_CONTENT:
                _check_range(response, position)
            to_skip = position if response.status == _OK else 0
            while chunk := await response.read():
                if to_skip < len(chunk):
                    await self._pass_on(endpoint, chunk[to_skip:] if to_skip else chunk)
                to_skip = max(0, to_skip - len(chunk))

    async def _pass_on(self, endpoint: Endpoint, chunk: bytes) -> None:
        if self.position + len(chunk) > self._descriptor.size:
            raise MismatchError(f"{endpoint.name} sent more than the {self._descriptor.size} bytes of {self._descriptor.digest}")
        self.position += len(chunk)
        await self._sink(chunk)


def _check_range(response: RegistryResponse, position: int) -> None:
    """Raise UnavailableError unless a partial response begins at the position that was requested (RFC 9110, section 14.4)."""
    if not re.match(rf"bytes {position}-", response.headers.get("Content-Range", "")):
        raise UnavailableError(f"{response.host} sent another part of a blob than was requested")
