"""Reading an object back and hashing it in constant memory, over as many requests as it takes."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from publisher.errors import OriginError
from publisher.targets.pelican.transport import CHUNK_SIZE

if TYPE_CHECKING:
    from publisher.chunks.reader import ByteReader
    from publisher.targets.pelican.transport import OriginResponse

_OK = 200


class ObjectReadback:
    """The sha256 of an object that should have ``size`` bytes; a request that broke off is resumed at its position.

    Args:
        size: bytes of the object.
        reader: gets all of them too, in other threads, one after the other.

    Attributes:
        position: the number of bytes that were read.
        is_absent: whether there is no object of this size.
    """

    def __init__(self, size: int, reader: ByteReader | None = None) -> None:
        self._size = size
        self._reader = reader
        self._sha256 = hashlib.sha256()
        self.position = 0
        self.is_absent = False

    def headers(self) -> dict[str, str]:
        """Return the headers of the next request: a range with both ends, because XRootD sends nothing without an end."""
        return {"Range": f"bytes={self.position}-{self._size - 1}"} if self.position else {}

    def hexdigest(self) -> str | None:
        """Return the sha256; None if the object is absent or has another size."""
        return None if self.is_absent or self.position != self._size else self._sha256.hexdigest()

    async def read(self, response: OriginResponse) -> None:
        """Hash a body in another thread while it arrives; an object of another size becomes absent.

        Raises:
            OriginError: the response is for another range.
            TransientError: the body broke off.
        """
        self._begin(response)
        batch: list[bytes] = []
        hashing: asyncio.Future[None] | None = None
        try:
            async for chunk in response.chunks():
                batch.append(chunk)
                self.position += len(chunk)
                if self.position > self._size:
                    self.is_absent = True
                    return
                if sum(map(len, batch)) >= CHUNK_SIZE:
                    if hashing is not None:
                        await hashing
                    hashing, batch = asyncio.ensure_future(asyncio.to_thread(self._hash, batch)), []
        finally:
            if hashing is not None:
                await asyncio.wait([hashing])
            self._hash(batch)
        if self.position < self._size:
            self.is_absent = True

    def _begin(self, response: OriginResponse) -> None:
        if response.status == _OK:
            self._sha256, self.position = hashlib.sha256(), 0
            if self._reader is not None:
                self._reader.restart()
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {self.position}-"):
            raise OriginError(f"{response.host} sends another part of the file than it was asked for")

    def _hash(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            self._sha256.update(chunk)
            if self._reader is not None:
                self._reader.update(chunk)
