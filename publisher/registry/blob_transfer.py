"""A blob on its way: its bytes in order and each once, whatever breaks, and wherever they come from."""

from __future__ import annotations

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

_OK, _PARTIAL = 200, 206


class SizeMismatchError(BlobError):
    """What came is not what was asked for; somebody else may have the right thing."""


class BlobTransfer:
    """One blob's.

    Args:
        access: to the endpoints.
        repository: where the blob is.
        descriptor: what it should be.
        sink: takes the bytes.
        position: the offset to begin at.

    Attributes:
        position: bytes handed on, those before the beginning included.
    """

    def __init__(self, access: Access, repository: str, descriptor: oci.Descriptor, sink: Sink, position: int) -> None:
        self._access = access
        self._repository = repository
        self._descriptor = descriptor
        self._sink = sink
        self.position = position

    async def attempt(self, endpoint: Endpoint) -> None:
        """Get on, to the end if all goes well.

        Raises:
            TransientError: it broke off.
            SizeMismatchError: there are more bytes than the descriptor says.
            DeniedError, NotFoundError, UnavailableError: as their names say.
        """
        size = self._descriptor.size
        if self.position < size:
            await self._receive(endpoint)
        if self.position < size:
            raise TransientError(f"{endpoint.name} gives only {self.position} of the {size} bytes of a blob")

    async def _receive(self, endpoint: Endpoint) -> None:
        position, digest = self.position, self._descriptor.digest
        headers = {"Range": f"bytes={position}-"} if position else {}
        async with self._access.open("GET", endpoint, self._repository, f"blobs/{digest}", headers, small=False) as answer:
            await status.check(answer, endpoint.name, f"blob {digest}", (_OK, _PARTIAL))
            passed_over = position if answer.status == _OK else _check_start(answer, position)
            while chunk := await answer.read():
                if passed_over < len(chunk):
                    await self._hand_on(endpoint, chunk[passed_over:] if passed_over else chunk)
                passed_over = max(0, passed_over - len(chunk))

    async def _hand_on(self, endpoint: Endpoint, chunk: bytes) -> None:
        if self.position + len(chunk) > self._descriptor.size:
            raise SizeMismatchError(
                f"{endpoint.name} gives more than the {self._descriptor.size} bytes of {self._descriptor.digest}"
            )
        self.position += len(chunk)
        await self._sink(chunk)


def _check_start(answer: RegistryResponse, position: int) -> int:
    """Refuse the wrong part of a blob (RFC 9110, section 14.4); returns the bytes to pass over, none."""
    if not re.match(rf"bytes {position}-", answer.headers.get("Content-Range", "")):
        raise UnavailableError(f"{answer.host} gives another part of a blob than it was asked for")
    return 0
