"""The WebDAV client of an origin: one method for each request; names are relative to the prefix.

It copes with deviations of XRootD from the standards: XRootD sends 500 if a part of a path is a file, an HTML page for a
directory, another checksum than the one asked for, and nothing for a range without an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any

from publisher.errors import OriginError
from publisher.net.retry import TransientError
from publisher.targets.pelican import status
from publisher.targets.pelican.propfind import parse_multistatus
from publisher.targets.pelican.readback import ObjectReadback
from publisher.targets.pelican.tokens import CREATE, MODIFY, READ, TokenScope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from publisher.chunks.reader import ByteReader
    from publisher.targets.pelican.content import UploadStream
    from publisher.targets.pelican.federation.endpoint import OriginEndpoint
    from publisher.targets.pelican.propfind import DavEntry
    from publisher.targets.pelican.status import OriginRefusal
    from publisher.targets.pelican.tokens import TokenSource
    from publisher.targets.pelican.transport import OriginResponse, OriginTransport

_log = logging.getLogger(__name__)
_OK, _CREATED, _NO_CONTENT, _PARTIAL, _MULTISTATUS = 200, 201, 204, 206, 207
_SUCCESS = (_OK, _CREATED, _NO_CONTENT)
_MAX_LISTING = 256 << 20  # bytes
_MAX_REPLACEMENTS = 20  # times that a file may be replaced while it is read
_PAUSE = 0.05  # seconds
_ADLER = re.compile(r"(?:^|,)\s*adler32=([0-9a-f]{1,8})\s*(?:,|$)", re.IGNORECASE)


class WebDavClient:
    """The WebDAV client of an origin.

    Args:
        transport: sends the requests.
        endpoint: knows the origin.
        tokens: the tokens of all requests but those that remove objects.
        removal_tokens: the tokens of requests that remove objects.
    """

    def __init__(
        self, transport: OriginTransport, endpoint: OriginEndpoint, tokens: TokenSource, removal_tokens: TokenSource
    ) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self._tokens = tokens
        self._removal_tokens = removal_tokens

    async def stat(self, name: str) -> DavEntry | None:
        """Return a file or directory, None if there is none. Raises OriginError, TransientError."""
        entries = await self._properties(name, "0")
        if entries is None:
            return None
        if len(entries) != 1:
            raise OriginError(f"the origin was asked for {name} and describes {len(entries)} paths")
        return entries[0]

    async def list_directory(self, name: str) -> dict[str, DavEntry]:
        """Return the entries of a directory by their last part; an empty dict if there is no such directory."""
        entries = await self._properties(name, "1") or []
        directory = (await self._endpoint.locate()).path + (f"/{name}" if name else "")
        below = {entry.path.removeprefix(f"{directory}/"): entry for entry in entries if entry.path.startswith(f"{directory}/")}
        return {last: entry for last, entry in below.items() if "/" not in last}

    async def read(self, name: str, max_size: int) -> bytes | None:
        """Return the content of a small file, None if there is none; read it again if it was replaced meanwhile.

        XRootD determines the size of a path before it opens it, so it may send the beginning of a new file, cut to the size of
        the old one.

        Raises:
            OriginError: the request was refused, or the file has more than ``max_size`` bytes.
            TransientError: no response, or the file is replaced all the time.
        """
        entry = await self.stat(name)
        for _ in range(_MAX_REPLACEMENTS):
            if entry is None or entry.is_directory:
                return None
            async with self._send("GET", name, [(READ, name)]) as response:
                if response.status == _OK:
                    content: bytes | None = await response.body(max_size)
                else:
                    await self._require_absent(response, f"send {name}")
                    content = None
            before, entry = entry, await self.stat(name)
            if content is not None and entry == before and entry.size == len(content):
                return content
        raise TransientError(f"{name} is replaced whenever it is read")

    async def put(self, name: str, stream: UploadStream, size: int) -> None:
        """Store an upload under a new name; the caller deletes what is left of a failed one.

        Raises:
            OriginError: the request was refused.
            SpaceError: the origin's disk is full.
            TransientError: the connection broke off.
        """
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        total = self._transport.timeouts.for_size(size)
        async with self._send("PUT", name, [(CREATE, name)], headers=headers, body=stream.chunks, total=total) as response:
            await self._require_success(response, f"store {name}")

    async def check_writable(self, name: str) -> None:
        """Store an empty file under a new name and delete it, to see whether uploads are allowed.

        A server that refuses a large upload closes the connection while the body is sent, which looks like a failure.

        Raises:
            OriginError: the request was refused.
            TransientError: no response.
        """
        async with self._send("PUT", name, [(CREATE, name)], headers={"Content-Length": "0"}) as response:
            await self._require_success(response, f"store {name}")
        await self.delete(name, is_upload=True)

    async def adler32(self, name: str, size: int) -> str | None:
        """Return the origin's own checksum of a file of ``size`` bytes, 8 hex; None if it has none, or another kind.

        XRootD 5.5.3 sooner or later stops serving anybody if a connection is reused or closed right after such a response (about
        one time in a hundred; later under load). So there is a pause, and checksums are not requested by default.
        """
        seconds = self._transport.timeouts.for_size(size)  # the first request makes the origin read the whole file
        headers = {"Want-Digest": "adler32"}
        async with self._send("HEAD", name, [(READ, name)], headers=headers, total=seconds, idle=seconds) as response:
            match = _ADLER.search(response.headers.get("Digest", "")) if response.status == _OK else None
        await asyncio.sleep(_PAUSE)
        return match[1].lower().zfill(8) if match is not None else None

    async def sha256(
        self,
        name: str,
        size: int,
        retry: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
        reader: ByteReader | None = None,
    ) -> str | None:
        """Return the sha256 of a file, read in constant memory; None if there is no file of this size.

        Args:
            name: the file's name.
            size: its expected size.
            retry: awaits a function until it raises no TransientError; each attempt goes on where the last one broke off.
            reader: gets the bytes of the file too.
        """
        readback = ObjectReadback(size, reader)

        async def attempt() -> None:
            headers, total = readback.headers(), self._transport.timeouts.for_size(size - readback.position)
            async with self._send("GET", name, [(READ, name)], headers=headers, total=total) as response:
                if response.status not in (_OK, _PARTIAL):
                    await self._require_absent(response, f"send {name}")
                    readback.is_absent = True
                    return
                await readback.read(response)

        await retry(attempt)
        return readback.hexdigest()

    async def move(self, name: str, new_name: str, capability: str) -> OriginRefusal | None:
        """Rename a file; return the refusal, or None if it was renamed.

        Args:
            name: the file's present name.
            new_name: its new name.
            capability: what the token grants for ``new_name``: with CREATE, an existing file is not replaced and the move is
                refused; with MODIFY it is replaced.
        """
        destination = str((await self._endpoint.locate()).url(new_name))
        headers = {"Destination": destination, "Overwrite": "T" if capability == MODIFY else "F"}
        async with self._send("MOVE", name, [(MODIFY, name), (capability, new_name)], headers=headers) as response:
            return None if response.status in _SUCCESS else await status.read_refusal(response)

    async def delete(self, name: str, *, is_upload: bool = False) -> None:
        """Delete a file; do nothing if there is none.

        Args:
            name: the file's name.
            is_upload: whether it is an upload of our own rather than an object.
        """
        tokens = self._tokens if is_upload else self._removal_tokens
        async with self._send("DELETE", name, [(MODIFY, name)], tokens=tokens) as response:
            if response.status not in _SUCCESS:
                await self._require_absent(response, f"remove {name}")

    async def _properties(self, name: str, depth: str) -> list[DavEntry] | None:
        async with self._send("PROPFIND", name, [(READ, name)], headers={"Depth": depth}) as response:
            if response.status == _MULTISTATUS:
                return parse_multistatus(await response.body(_MAX_LISTING), response.host)
            await self._require_absent(response, f"describe {name or 'its prefix'}")
            return None

    async def _require_success(self, response: OriginResponse, action: str) -> None:
        if response.status not in _SUCCESS:
            raise status.to_error(await status.read_refusal(response), action)

    async def _require_absent(self, response: OriginResponse, action: str) -> None:
        """Raise the error for a refusal, unless it means that there is no such file."""
        refusal = await status.read_refusal(response)
        if not status.means_absent(refusal.status, refusal.message):
            raise status.to_error(refusal, action)

    @contextlib.asynccontextmanager
    async def _send(
        self,
        method: str,
        name: str,
        scopes: Sequence[tuple[str, str]],
        *,
        headers: dict[str, str] | None = None,
        body: Callable[[], AsyncIterator[bytes]] | None = None,
        tokens: TokenSource | None = None,
        **timeouts: Any,
    ) -> AsyncIterator[OriginResponse]:
        """Send a request with a token for ``scopes`` (capability, name); once more if it is denied and there is a new token."""
        try:
            location, tokens = await self._endpoint.locate(), tokens or self._tokens
            url, prefix = location.url(name) if name else location.server.with_path(location.path), location.path
            absolute_scopes = [TokenScope(capability, f"{prefix}/{path}" if path else prefix) for capability, path in scopes]
            token, is_refreshed = tokens.bearer(absolute_scopes, location.base), False
            while True:
                authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
                chunks = None if body is None else body()
                all_headers = {**(headers or {}), **authorization}
                async with self._transport.open(method, url, all_headers, body=chunks, **timeouts) as response:
                    if response.status in status.DENIED and not is_refreshed:
                        is_refreshed, old_token, token = True, token, tokens.bearer(absolute_scopes, location.base)
                        if token != old_token:
                            continue
                    yield response
                    return
        except TransientError as error:
            _log.debug("%s %s failed, so the origin is looked up anew: %s", method, name or "(the prefix)", error.reason)
            self._endpoint.forget()
            raise
