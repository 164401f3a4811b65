"""The content of an upload: a file or bytes, hashed in another thread while it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Self

from publisher.errors import OriginError
from publisher.system.durable import HOST_ADVICE
from publisher.targets.pelican.transport import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path
    from types import TracebackType


@dataclass(frozen=True)
class UploadContent:
    """Content that can be read any number of times.

    Attributes:
        label: what messages call it.
        sha256: 64 hex.
        size: bytes.
        path: the file with the content, None if it is in memory.
    """

    label: str
    sha256: str
    size: int
    path: Path | None
    _open: Callable[[], BinaryIO] = field(repr=False)

    def open(self) -> BinaryIO:
        """Open the content at its beginning. Raises OSError."""
        return self._open()


class UploadStream:
    """The content while it is sent: an asynchronous context manager that keeps it open, even if the consumer is cancelled.

    Attributes:
        error: why the content could not be read to its end, None if it could.
    """

    def __init__(self, content: UploadContent) -> None:
        self._content = content
        self._ahead: asyncio.Future[bytes] | None = None
        self.error: OriginError | None = None
        self._restart()

    async def __aenter__(self) -> Self:
        with self._recorded_errors():
            self._file = self._content.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._finish_read()
        self._file.close()

    @property
    def adler32(self) -> str:
        """The adler32 of the bytes that were sent, 8 hex."""
        return f"{self._adler:08x}"

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the content from its beginning, never more than its size; the next chunk is read and hashed meanwhile.

        Raises:
            OriginError: the content cannot be read, or ends too early; the error is also kept in :attr:`error`.
        """
        await self._finish_read()
        self._restart()
        with self._recorded_errors():
            self._file.seek(0)
            while chunk := await self._next_chunk():
                yield chunk
        if self._sent != self._content.size:
            self.error = OriginError(f"{self._content.label} ended after {self._sent} bytes, not {self._content.size}")
            raise self.error

    def verify(self) -> None:
        """Compare the sha256 of the bytes that were sent with the expected one.

        Raises:
            OriginError: they differ.
        """
        sha256 = self._sha256.hexdigest()
        if sha256 != self._content.sha256:
            raise OriginError(f"{self._content.label} has the sha256 {sha256}, not {self._content.sha256}")

    def _restart(self) -> None:
        self._sha256 = hashlib.sha256()
        self._adler = zlib.adler32(b"")
        self._sent = 0

    async def _next_chunk(self) -> bytes:
        """Return the next chunk, and begin to read the one after it."""
        if self._ahead is None:
            self._ahead = asyncio.ensure_future(asyncio.to_thread(self._read))
        chunk = await asyncio.shield(self._ahead)  # if the waiting task is cancelled, the thread goes on; see _finish_read
        self._ahead = asyncio.ensure_future(asyncio.to_thread(self._read)) if chunk else None
        return chunk

    async def _finish_read(self) -> None:
        """Wait for the end of a read whose result nobody uses."""
        if self._ahead is not None:
            await asyncio.gather(self._ahead, return_exceptions=True)
            self._ahead = None

    @contextlib.contextmanager
    def _recorded_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = OriginError(f"cannot read {self._content.label}: {error.strerror}", hint=HOST_ADVICE)
            raise self.error from None

    def _read(self) -> bytes:
        chunk = self._file.read(min(CHUNK_SIZE, self._content.size - self._sent))
        self._sent += len(chunk)
        self._sha256.update(chunk)
        self._adler = zlib.adler32(chunk, self._adler)
        return chunk


def from_bytes(label: str, content: bytes) -> UploadContent:
    """Return content in memory."""
    return UploadContent(label, hashlib.sha256(content).hexdigest(), len(content), None, lambda: io.BytesIO(content))


def from_file(path: Path, sha256: str, size: int) -> UploadContent:
    """Return the content of a file with the expected sha256 and size; the sha256 is verified while it is sent.

    Raises:
        OriginError: the file cannot be read, or has another size.
    """
    try:
        with path.open("rb") as file:
            actual_size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise OriginError(f"cannot store {path}: {error.strerror}", hint=HOST_ADVICE) from None
    if actual_size != size:
        raise OriginError(f"{path} has {actual_size} bytes, not {size}")
    return UploadContent(str(path), sha256, size, path, lambda: path.open("rb", buffering=0))
