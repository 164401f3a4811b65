"""What is to be stored: a file or bytes, hashed in another thread while it is on its way."""

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
from publisher.targets.pelican.transport import PIECE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path
    from types import TracebackType


@dataclass(frozen=True)
class UploadContent:
    """Bytes that can be read again and again.

    Attributes:
        label: what it is called in messages.
        sha256: 64 hex.
        size: bytes.
        path: the file that holds them, None where they are in memory.
    """

    label: str
    sha256: str
    size: int
    path: Path | None
    _open: Callable[[], BinaryIO] = field(repr=False)

    def open(self) -> BinaryIO:
        """From the beginning. Raises OSError."""
        return self._open()


class UploadStream:
    """The content on its way: an asynchronous context manager that holds it open, whatever becomes of who takes the pieces.

    Attributes:
        problem: why the content could not be read to its end, None where it could.
    """

    def __init__(self, content: UploadContent) -> None:
        self._content = content
        self._ahead: asyncio.Future[bytes] | None = None
        self.problem: OriginError | None = None
        self._start()

    async def __aenter__(self) -> Self:
        with self._told():
            self._file = self._content.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._settled()
        self._file.close()

    @property
    def adler32(self) -> str:
        """Of what was sent, 8 hex."""
        return f"{self._adler:08x}"

    async def pieces(self) -> AsyncIterator[bytes]:
        """The content from its beginning, never more than was announced; the next piece is read and hashed while one is sent.

        Raises:
            OriginError: it cannot be read, or ends too early; also kept as :attr:`problem`.
        """
        await self._settled()
        self._start()
        with self._told():
            self._file.seek(0)
            while piece := await self._read():
                yield piece
        if self._sent != self._content.size:
            self.problem = OriginError(f"{self._content.label} ended after {self._sent} bytes, not {self._content.size}")
            raise self.problem

    def check(self) -> None:
        """Compare what was sent with what should have been.

        Raises:
            OriginError: the content is not what it was said to be.
        """
        found = self._sha256.hexdigest()
        if found != self._content.sha256:
            raise OriginError(f"{self._content.label} has the sha256 {found}, not {self._content.sha256}")

    def _start(self) -> None:
        self._sha256 = hashlib.sha256()
        self._adler = zlib.adler32(b"")
        self._sent = 0

    async def _read(self) -> bytes:
        """The next piece; the one behind it is begun."""
        if self._ahead is None:
            self._ahead = asyncio.ensure_future(asyncio.to_thread(self._next))
        piece = await asyncio.shield(self._ahead)  # a thread goes on when who waits for it is cancelled; see _settled
        self._ahead = asyncio.ensure_future(asyncio.to_thread(self._next)) if piece else None
        return piece

    async def _settled(self) -> None:
        """Wait for a piece that nobody takes."""
        if self._ahead is not None:
            await asyncio.gather(self._ahead, return_exceptions=True)
            self._ahead = None

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problem = OriginError(f"cannot read {self._content.label}: {error.strerror}")
            raise self.problem from None

    def _next(self) -> bytes:
        piece = self._file.read(min(PIECE, self._content.size - self._sent))
        self._sent += len(piece)
        self._sha256.update(piece)
        self._adler = zlib.adler32(piece, self._adler)
        return piece


def of_bytes(label: str, content: bytes) -> UploadContent:
    """Bytes in memory."""
    return UploadContent(label, hashlib.sha256(content).hexdigest(), len(content), None, lambda: io.BytesIO(content))


def of_file(path: Path, sha256: str, size: int) -> UploadContent:
    """A file that is said to have this sha256 and size.

    Raises:
        OriginError: it cannot be read, or has another size.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise OriginError(f"cannot store {path}: {error.strerror}") from None
    if found != size:
        raise OriginError(f"{path} is {found} bytes, not {size}")
    return UploadContent(str(path), sha256, size, path, lambda: path.open("rb", buffering=0))
