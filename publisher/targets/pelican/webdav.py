"""One request each of what an origin can be asked to do, in WebDAV; names are relative to the prefix.

What XRootD does otherwise than the standards say is known here: it answers 500 where a part of a path is a file, serves a page
where a directory is asked for, gives another checksum than it is asked for, and nothing for a range without an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from typing import TYPE_CHECKING, Any

from publisher.errors import OriginError
from publisher.net.retry import TransientError
from publisher.targets.pelican import propfind, status
from publisher.targets.pelican.tokens import CREATE, MODIFY, READ, TokenScope
from publisher.targets.pelican.transport import PIECE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from publisher.targets.pelican.content import UploadStream
    from publisher.targets.pelican.endpoint import OriginEndpoint
    from publisher.targets.pelican.propfind import DavEntry
    from publisher.targets.pelican.status import OriginRefusal
    from publisher.targets.pelican.tokens import TokenSource
    from publisher.targets.pelican.transport import OriginResponse, OriginTransport

_OK, _CREATED, _EMPTY, _PARTIAL, _MULTISTATUS = 200, 201, 204, 206, 207
_DONE = (_OK, _CREATED, _EMPTY)
_LARGEST_LISTING = 256 << 20
_REPLACED = 20  # times that a file may be replaced while it is read
_REST = 0.05  # seconds
_ADLER = re.compile(r"(?:^|,)\s*adler32=([0-9a-f]{1,8})\s*(?:,|$)", re.IGNORECASE)


class WebDavClient:
    """An origin.

    Args:
        transport: sends the requests.
        place: knows where it is.
        tokens: what is shown to it.
        removing: what is shown to it for taking objects away.
    """

    def __init__(self, transport: OriginTransport, place: OriginEndpoint, tokens: TokenSource, removing: TokenSource) -> None:
        self._transport = transport
        self._place = place
        self._tokens = tokens
        self._removing = removing

    async def stat(self, name: str) -> DavEntry | None:
        """A file or a directory, None where there is nothing. Raises OriginError, TransientError."""
        found = await self._properties(name, "0")
        if found is None:
            return None
        if len(found) != 1:
            raise OriginError(f"the origin was asked for {name} and tells of {len(found)} paths")
        return found[0]

    async def children(self, name: str) -> dict[str, DavEntry]:
        """The entries of a directory by their last part; none where there is no such directory."""
        found = await self._properties(name, "1") or []
        top = (await self._place.where()).path + (f"/{name}" if name else "")
        below = {entry.path.removeprefix(f"{top}/"): entry for entry in found if entry.path.startswith(f"{top}/")}
        return {last: entry for last, entry in below.items() if "/" not in last}

    async def read(self, name: str, most: int) -> bytes | None:
        """The bytes of a small file, None where there is none; one that is replaced meanwhile is read again.

        XRootD looks at a path for the size before it opens it, so that it may give the beginning of a new file, cut to the size
        of the one before.

        Raises:
            OriginError: refused, or more than ``most`` bytes.
            TransientError: no answer, or it is replaced all the time.
        """
        entry = await self.stat(name)
        for _ in range(_REPLACED):
            if entry is None or entry.directory:
                return None
            async with self._send("GET", name, [(READ, name)]) as answer:
                content = await answer.body(most) if answer.status == _OK else await self._absent(answer, f"give {name}")
            before, entry = entry, await self.stat(name)
            if content is not None and entry == before and entry.size == len(content):
                return content
        raise TransientError(f"{name} is replaced whenever it is read")

    async def put(self, name: str, sending: UploadStream, size: int) -> None:
        """Store what is sent under a name that nothing has; what is left of a failed one has to be deleted.

        Raises:
            OriginError: refused.
            SpaceError: no room.
            TransientError: it broke off.
        """
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        total = self._transport.deadlines.whole(size)
        async with self._send("PUT", name, [(CREATE, name)], headers=headers, body=sending.pieces, total=total) as answer:
            if answer.status not in _DONE:
                raise status.failure(await status.refused(answer), f"store {name}")

    async def try_to_put(self, name: str) -> None:
        """Store nothing under a name that nothing has, to see whether it is allowed, and delete it.

        A server that refuses a large upload closes the connection while it is sent, which looks like one that broke down.

        Raises:
            OriginError: refused.
            TransientError: no answer.
        """
        async with self._send("PUT", name, [(CREATE, name)], headers={"Content-Length": "0"}) as answer:
            if answer.status not in _DONE:
                raise status.failure(await status.refused(answer), f"store {name}")
        await self.delete(name, ours=True)

    async def adler32(self, name: str, size: int) -> str | None:
        """The origin's own checksum of a file of ``size`` bytes, 8 hex; None where it has none, or one of another kind.

        XRootD 5.5.3 stops to serve anybody, sooner or later, where a connection is used again or closed in the moment after
        such an answer (one in some hundred; under load in a longer moment). So there is a pause, and nobody asks by default.
        """
        time = self._transport.deadlines.whole(size)  # the first time it reads the whole file
        headers = {"Want-Digest": "adler32"}
        async with self._send("HEAD", name, [(READ, name)], headers=headers, total=time, idle=time) as answer:
            found = _ADLER.search(answer.headers.get("Digest", "")) if answer.status == _OK else None
        await asyncio.sleep(_REST)
        return found[1].lower().zfill(8) if found is not None else None

    async def sha256(self, name: str, size: int, again: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]) -> str | None:
        """sha256 of a file that should have ``size`` bytes, in constant memory; None where there is none, or it has more or less.

        Args:
            name: of the file.
            size: what it should have.
            again: awaits a function until it raises no TransientError; each time goes on where the last one broke off.
        """
        reading = _Reading(size)

        async def attempt() -> None:
            headers, total = reading.headers(), self._transport.deadlines.whole(size - reading.position)
            async with self._send("GET", name, [(READ, name)], headers=headers, total=total) as answer:
                if answer.status not in (_OK, _PARTIAL):
                    await self._absent(answer, f"give {name}")
                    reading.absent = True
                    return
                await reading.take(answer)

        await again(attempt)
        return reading.hexdigest()

    async def move(self, name: str, to: str, right: str) -> OriginRefusal | None:
        """Give a file another name; None where that was done.

        Args:
            name: it has now.
            to: its new name.
            right: capability that is shown for ``to``: with CREATE only, what stands there stays, and the move is refused.
        """
        destination = str((await self._place.where()).url(to))
        headers = {"Destination": destination, "Overwrite": "T" if right == MODIFY else "F"}
        async with self._send("MOVE", name, [(MODIFY, name), (right, to)], headers=headers) as answer:
            return None if answer.status in _DONE else await status.refused(answer)

    async def delete(self, name: str, *, ours: bool = False) -> None:
        """Take a file away; nothing happens where there is none.

        Args:
            name: of the file.
            ours: it is an upload of our own, no object.
        """
        tokens = self._tokens if ours else self._removing
        async with self._send("DELETE", name, [(MODIFY, name)], tokens=tokens) as answer:
            if answer.status not in _DONE:
                await self._absent(answer, f"remove {name}")

    async def _properties(self, name: str, depth: str) -> list[DavEntry] | None:
        async with self._send("PROPFIND", name, [(READ, name)], headers={"Depth": depth}) as answer:
            if answer.status == _MULTISTATUS:
                return propfind.entries(await answer.body(_LARGEST_LISTING), answer.host)
            await self._absent(answer, f"tell of {name or 'its prefix'}")
            return None

    async def _absent(self, answer: OriginResponse, doing: str) -> bytes | None:
        """None; raises the error that an answer comes to, unless it means that there is no such thing."""
        refused = await status.refused(answer)
        if not status.means_absent(refused.status, refused.said):
            raise status.failure(refused, doing)
        return None

    @contextlib.asynccontextmanager
    async def _send(
        self,
        method: str,
        name: str,
        rights: Sequence[tuple[str, str]],
        *,
        headers: dict[str, str] | None = None,
        body: Callable[[], AsyncIterator[bytes]] | None = None,
        tokens: TokenSource | None = None,
        **times: Any,
    ) -> AsyncIterator[OriginResponse]:
        """A request with a token for ``rights`` (capability, name); refused, once more if there is another token by now."""
        try:
            located, tokens = await self._place.where(), tokens or self._tokens
            url, top = located.url(name) if name else located.server.with_path(located.path), located.path
            needs = [TokenScope(capability, f"{top}/{of}" if of else top) for capability, of in rights]
            shown, refreshed = tokens.bearer(needs, located.base), False
            while True:
                full = {**(headers or {}), **({} if shown is None else {"Authorization": f"Bearer {shown}"})}
                sent = None if body is None else body()
                async with self._transport.open(method, url, full, body=sent, **times) as answer:
                    if answer.status in status.REFUSED and not refreshed:
                        refreshed, before, shown = True, shown, tokens.bearer(needs, located.base)
                        if shown != before:
                            continue
                    yield answer
                    return
        except TransientError:
            self._place.forget()
            raise


class _Reading:
    """A file that is read back, over as many requests as it takes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._sha256 = hashlib.sha256()
        self.position = 0
        self.absent = False

    def headers(self) -> dict[str, str]:
        """Of the next request: a range with both its ends."""
        return {"Range": f"bytes={self.position}-{self._size - 1}"} if self.position else {}

    def hexdigest(self) -> str | None:
        """None where the file is absent, or not of its size."""
        return None if self.absent or self.position != self._size else self._sha256.hexdigest()

    async def take(self, answer: OriginResponse) -> None:
        """Hash a body while it comes, in another thread; a file of another size is absent."""
        self._begin(answer)
        batch: list[bytes] = []
        hashing: asyncio.Future[None] | None = None
        try:
            async for piece in answer.pieces():
                batch.append(piece)
                self.position += len(piece)
                if self.position > self._size:
                    self.absent = True
                    return
                if sum(map(len, batch)) >= PIECE:
                    if hashing is not None:
                        await hashing
                    hashing, batch = asyncio.ensure_future(asyncio.to_thread(self._hash, batch)), []
        finally:
            if hashing is not None:
                await asyncio.wait([hashing])
            self._hash(batch)
        if self.position < self._size:
            self.absent = True

    def _begin(self, answer: OriginResponse) -> None:
        if answer.status == _OK:
            self._sha256, self.position = hashlib.sha256(), 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {self.position}-"):
            raise OriginError(f"{answer.host} gives another part of a file than it was asked for")

    def _hash(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._sha256.update(piece)
