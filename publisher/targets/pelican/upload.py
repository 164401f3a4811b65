"""Uploading an object: stored under a temporary name, read back, and only then moved to its own name.

A crash at any point leaves nothing but a file in the incoming area. The name of that file identifies the process that made it,
so that a later run can tell which uploads are dead: those of a process of its own host that has ended, and those that are old.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from publisher.errors import OriginError, PublisherError
from publisher.net.retry import TransientError
from publisher.targets.pelican.content import UploadStream
from publisher.targets.pelican.owner import this_process
from publisher.targets.pelican.status import NOT_FOUND, to_error
from publisher.targets.pelican.tokens import CREATE, MODIFY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from publisher.net.retry import RetryPolicy
    from publisher.targets.pelican.content import UploadContent
    from publisher.targets.pelican.status import OriginRefusal
    from publisher.targets.pelican.webdav import WebDavClient

INCOMING = ".incoming"
"""The directory of uploads that have no name of their own yet: files of publishers, and a directory for each build job."""
_OLD = 86400.0  # seconds; an upload in progress is written to all the time
_OLD_JOB = 7 * 86400.0  # seconds; a job that has ended waits for its publisher
_CLEANUP = 15.0  # seconds that deleting a failed upload may take


class UploadMethod(Protocol):
    """How the bytes of an upload get to the origin."""

    async def send(self, client: WebDavClient, name: str, content: UploadContent) -> UploadStream:
        """Upload content under a new name; return the stream that was sent, whose sha256 is verified.

        Raises:
            OriginError, SpaceError, TransientError: as :meth:`publisher.targets.pelican.webdav.WebDavClient.put`.
        """


class WebDavUpload:
    """Uploads by a PUT of this program."""

    async def send(self, client: WebDavClient, name: str, content: UploadContent) -> UploadStream:
        """See :meth:`UploadMethod.send`."""
        async with UploadStream(content) as stream:
            try:
                await client.put(name, stream, content.size)
            except TransientError:
                if stream.error is not None:  # reading failed and broke the request off: a retry does not help
                    raise stream.error from None
                await client.check_writable(f"{INCOMING}/{this_process().new_upload_name()}")
                raise
        stream.verify()
        return stream


class Uploader:
    """Stores content in an origin.

    Args:
        client: the WebDAV client of the origin.
        method: how files are sent; content in memory is always sent by WebDAV.
        retries: how often failures that may pass are retried.
        checksums: whether the origin is asked for its own checksum too, before the upload is read back.
    """

    def __init__(self, client: WebDavClient, method: UploadMethod, retries: RetryPolicy, *, checksums: bool = False) -> None:
        self._client = client
        self._method = method
        self._retries = retries
        self._checksums = checksums
        self._verified: dict[str, str] = {}  # sha256 -> an upload that was read and has it

    def note_verified(self, upload: str, sha256: str) -> None:
        """Note that an upload of somebody else was read and has a sha256: :meth:`put` of this content gives it its name."""
        self._verified[sha256] = upload

    async def put(self, name: str, content: UploadContent) -> bool:
        """Store content under a name that is never overwritten; return False if it was already there.

        Raises:
            OriginError: the upload was refused, the name has other content, or the source is not what it should be.
            SpaceError: the origin's disk is full.
        """
        return await self._retries.run(lambda: self._put(name, content))

    async def replace(self, name: str, content: UploadContent) -> None:
        """Store content under a name, and replace what is there. Raises as :meth:`put`."""
        await self._retries.run(lambda: self._replace(name, content))

    async def sweep(self, now: float) -> list[tuple[str, int]]:
        """Delete what dead uploads left; return their names and sizes. ``now`` is in seconds since the epoch."""
        owner, swept = this_process(), []
        entries = await self._retries.run(partial(self._client.list_directory, INCOMING))
        for last, entry in sorted(entries.items()):
            is_old = entry.modified is not None and entry.modified < now - _OLD
            if entry.is_directory:
                if entry.modified is not None and entry.modified < now - _OLD_JOB:
                    await self._retries.run(partial(self.discard_directory, f"{INCOMING}/{last}"))
                    swept.append((last, entry.size))
            elif is_old or owner.knows_dead(last, entry.modified):
                await self._retries.run(partial(self._client.delete, f"{INCOMING}/{last}", is_upload=True))
                swept.append((last, entry.size))
        return swept

    async def discard_directory(self, directory: str) -> None:
        """Delete a directory of a build job below the incoming area, with its files; do nothing if there is none.

        Raises:
            OriginError, TransientError: as :meth:`publisher.targets.pelican.webdav.WebDavClient.delete`.
        """
        for last in await self._client.list_directory(directory):
            await self._client.delete(f"{directory}/{last}", is_upload=True)
        await self._client.delete(directory, is_upload=True)

    async def _put(self, name: str, content: UploadContent) -> bool:
        if await self._is_stored(name, content):
            return False
        async with self._uploaded(name, content) as upload:
            refusal = await self._client.move(upload.name, name, CREATE)
            upload.is_moved = refusal is None
            return refusal is None or await self._was_stored_meanwhile(name, content, refusal)

    async def _replace(self, name: str, content: UploadContent) -> None:
        entry = await self._client.stat(name)
        if entry is not None and entry.is_directory:
            raise OriginError(f"{name!r} exists and is not a file")
        async with self._uploaded(name, content) as upload:
            refusal = await self._client.move(upload.name, name, MODIFY)
            upload.is_moved = refusal is None
            if refusal is not None:
                raise _move_error(name, refusal)

    async def _was_stored_meanwhile(self, name: str, content: UploadContent, refusal: OriginRefusal) -> bool:
        """Return False if a move was refused because another upload of the same content was quicker; raise otherwise."""
        if refusal.status != NOT_FOUND and await self._is_stored(name, content):
            return False
        raise _move_error(name, refusal)

    async def _is_stored(self, name: str, content: UploadContent) -> bool:
        """Return whether the name has exactly this content.

        Raises:
            OriginError: it has other content.
        """
        entry = await self._client.stat(name)
        if entry is None:
            return False
        if entry.is_directory:
            raise OriginError(f"{name!r} exists and is not a file")
        problem = None if entry.size == content.size else f"{entry.size} bytes, not {content.size}"
        if problem is None:
            problem = await self._sha256_problem(name, content)
        if problem is not None:
            hint = "it is never overwritten; if it is damaged, remove it"
            raise OriginError(f"{name!r} already exists with other bytes: {problem}", hint=hint)
        return True

    @contextlib.asynccontextmanager
    async def _uploaded(self, name: str, content: UploadContent) -> AsyncIterator[_Upload]:
        """Upload content and verify it; the upload is deleted after the block unless it was moved."""
        verified = self._verified.pop(content.sha256, None)
        upload = _Upload(verified or f"{INCOMING}/{this_process().new_upload_name()}")
        method = self._method if content.path is not None else WebDavUpload()
        try:
            if verified is None:
                stream = await method.send(self._client, upload.name, content)
                await self._verify(upload.name, name, content, stream.adler32)
            yield upload
        finally:
            if not upload.is_moved:
                with contextlib.suppress(PublisherError, TransientError, TimeoutError):  # a later run sweeps it
                    async with asyncio.timeout(_CLEANUP):
                        await self._client.delete(upload.name, is_upload=True)

    async def _verify(self, upload: str, name: str, content: UploadContent, adler32: str) -> None:
        """Compare an upload at the origin with its content: the origin's checksum if that is wanted, size and sha256."""
        checksum = await self._client.adler32(upload, content.size) if self._checksums else None
        problem = None if checksum in (None, adler32) else f"adler32 {checksum}, not {adler32}"
        if problem is None:
            problem = await self._sha256_problem(upload, content)
        if problem is not None:
            raise TransientError(f"the upload of {name!r} is not what it should be: {problem}")

    async def _sha256_problem(self, name: str, content: UploadContent) -> str | None:
        sha256 = await self._client.sha256(name, content.size, self._retries.run)
        return None if sha256 == content.sha256 else f"sha256 {sha256}, not {content.sha256}"


@dataclass
class _Upload:
    """A file in the incoming area, until it ``is_moved``."""

    name: str
    is_moved: bool = False


def _move_error(name: str, refusal: OriginRefusal) -> Exception:
    action = f"give an upload the name {name}"
    if refusal.status == NOT_FOUND:
        return TransientError(f"{refusal.host} does not {action}: the upload is gone")
    return to_error(refusal, action)
