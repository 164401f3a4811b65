"""How content comes to have a name: uploaded under a temporary one, read back, and only then moved.

A crash at any point leaves nothing but a file in the incoming area. The name of such a file says who makes it, so that a later
run can tell what is dead: by its own host's process that is gone, or by its age.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from publisher.errors import OriginError, PublisherError
from publisher.net.retry import TransientError
from publisher.targets.pelican import status
from publisher.targets.pelican.content import UploadStream
from publisher.targets.pelican.owner import this_process
from publisher.targets.pelican.tokens import CREATE, MODIFY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from publisher.net.retry import RetryPolicy
    from publisher.targets.pelican.content import UploadContent
    from publisher.targets.pelican.status import OriginRefusal
    from publisher.targets.pelican.webdav import WebDavClient

INCOMING = ".incoming"
_OLD = 86400.0  # seconds; a living upload is written to all the time
_TIDYING = 15.0  # seconds that deleting what a failed upload left may take


class Carrier(Protocol):
    """What brings the bytes there."""

    async def carry(self, store: WebDavClient, name: str, content: UploadContent) -> UploadStream:
        """Upload content under a name that nothing has; what was sent, checked.

        Raises:
            OriginError, SpaceError, TransientError: as :meth:`publisher.targets.pelican.webdav.WebDavClient.put`.
        """


class Own:
    """This program itself."""

    async def carry(self, store: WebDavClient, name: str, content: UploadContent) -> UploadStream:
        """See :meth:`Carrier.carry`."""
        async with UploadStream(content) as sending:
            try:
                await store.put(name, sending, content.size)
            except TransientError:
                if sending.problem is not None:  # that broke the request off, and another try would not help
                    raise sending.problem from None
                await store.try_to_put(f"{INCOMING}/{this_process().name()}")
                raise
        sending.check()
        return sending


class Uploads:
    """Stores content in an origin.

    Args:
        store: the origin.
        carrier: brings files there; small content goes by itself.
        patience: how often what may be gone the next time is tried.
        checksums: the origin is asked for its own as well, before all is read back.
    """

    def __init__(self, store: WebDavClient, carrier: Carrier, patience: RetryPolicy, *, checksums: bool = False) -> None:
        self._store = store
        self._carrier = carrier
        self._patience = patience
        self._checksums = checksums

    async def put(self, name: str, content: UploadContent) -> bool:
        """Store content for good; False where it was there already.

        Raises:
            OriginError: refused, other bytes under that name, or the source is not what it was said to be.
            SpaceError: no room.
        """
        return await self._patience.run(lambda: self._put(name, content))

    async def replace(self, name: str, content: UploadContent) -> None:
        """Let content take the place of what the name has. Raises as :meth:`put`."""
        await self._patience.run(lambda: self._replace(name, content))

    async def sweep(self, now: float) -> list[tuple[str, int]]:
        """Delete what dead uploads left: their names and sizes. ``now``: seconds since the epoch."""
        me, swept = this_process(), []
        left = await self._patience.run(partial(self._store.children, INCOMING))
        for last, entry in sorted(left.items()):
            old = entry.modified is not None and entry.modified < now - _OLD
            if not entry.directory and (old or me.knows_dead(last, entry.modified)):
                await self._patience.run(partial(self._store.delete, f"{INCOMING}/{last}", ours=True))
                swept.append((last, entry.size))
        return swept

    async def _put(self, name: str, content: UploadContent) -> bool:
        if await self._is_there(name, content):
            return False
        async with self._uploaded(name, content) as upload:
            refused = await self._store.move(upload.name, name, CREATE)
            upload.moved = refused is None
            return refused is None or await self._given_before(name, content, refused)

    async def _replace(self, name: str, content: UploadContent) -> None:
        there = await self._store.stat(name)
        if there is not None and there.directory:
            raise OriginError(f"{name!r} is there and is not a file")
        async with self._uploaded(name, content) as upload:
            refused = await self._store.move(upload.name, name, MODIFY)
            upload.moved = refused is None
            if refused is not None:
                raise _not_moved(name, refused)

    async def _given_before(self, name: str, content: UploadContent, refused: OriginRefusal) -> bool:
        """What a refused move means: another upload was quicker (False), or it is refused for good."""
        if refused.status != status.MISSING and await self._is_there(name, content):
            return False
        raise _not_moved(name, refused)

    async def _is_there(self, name: str, content: UploadContent) -> bool:
        """Whether the name has just these bytes.

        Raises:
            OriginError: it has others.
        """
        there = await self._store.stat(name)
        if there is None:
            return False
        if there.directory:
            raise OriginError(f"{name!r} is there and is not a file")
        problem = None if there.size == content.size else f"{there.size} bytes, not {content.size}"
        if problem is None:
            found = await self._store.sha256(name, content.size, self._patience.run)
            problem = None if found == content.sha256 else f"sha256 {found}, not {content.sha256}"
        if problem is not None:
            hint = "it is never overwritten; if it is damaged, remove it"
            raise OriginError(f"other bytes stand under {name!r}: {problem}", hint=hint)
        return True

    @contextlib.asynccontextmanager
    async def _uploaded(self, name: str, content: UploadContent) -> AsyncIterator[_Upload]:
        """An upload that is there and right; it is gone afterwards unless it was moved."""
        upload = _Upload(f"{INCOMING}/{this_process().name()}")
        carrier = self._carrier if content.path is not None else Own()
        try:
            sending = await carrier.carry(self._store, upload.name, content)
            await self._check(upload.name, name, content, sending.adler32)
            yield upload
        finally:
            if not upload.moved:
                with contextlib.suppress(PublisherError, TransientError, TimeoutError):  # a later run sweeps it
                    async with asyncio.timeout(_TIDYING):
                        await self._store.delete(upload.name, ours=True)

    async def _check(self, temporary: str, name: str, content: UploadContent, adler32: str) -> None:
        """Compare what an upload is at the origin with what it should be: its checksum there, its size, and all its bytes."""
        there = await self._store.adler32(temporary, content.size) if self._checksums else None
        problem = None if there in (None, adler32) else f"adler32 {there}, not {adler32}"
        if problem is None:
            found = await self._store.sha256(temporary, content.size, self._patience.run)
            problem = None if found == content.sha256 else f"sha256 {found}, not {content.sha256}"
        if problem is not None:
            raise TransientError(f"the upload of {name!r} is not what it should be: {problem}")


@dataclass
class _Upload:
    """A file in the incoming area, until it was ``moved``."""

    name: str
    moved: bool = False


def _not_moved(name: str, refused: OriginRefusal) -> Exception:
    doing = f"give an upload the name {name}"
    if refused.status == status.MISSING:
        return TransientError(f"{refused.host} does not {doing}: it is gone")
    return status.failure(refused, doing)
