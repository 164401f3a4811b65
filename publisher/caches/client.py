"""Pelican's management API of caches (xrdhttp-pelican): ``prestage`` and ``evict``, both by GET.

A cache without the API answers 404. A prestage answers with lines of progress; the last one says how it ended. An eviction needs
a token that may modify the object, and its success can mean that the object is only marked for eviction.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from yarl import URL

from publisher.errors import OriginError
from publisher.net.retry import RetriesExhaustedError
from publisher.targets.pelican.status import NOT_FOUND, read_refusal, to_error
from publisher.targets.pelican.tokens import MODIFY, READ, TokenScope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from publisher.net.retry import RetryPolicy
    from publisher.targets.pelican.tokens import TokenSource
    from publisher.targets.pelican.transport import OriginTransport

_log = logging.getLogger(__name__)
_API = "/pelican/api/v1.0"
_OK = 200
_LONGEST_TEXT = 1 << 24  # bytes of progress
_LAST_LINE = 1000
_AT_ONCE = 4
DEADLINE = 900.0
"""Seconds for all requests of a run."""


class CacheClient:
    """Asks caches.

    Args:
        transport: sends the requests.
        tokens: the tokens for reading.
        removal_tokens: the tokens for evicting.
        retries: how often failures that may pass are tried again; a ``Retry-After`` is waited for.
    """

    def __init__(
        self, transport: OriginTransport, tokens: TokenSource, removal_tokens: TokenSource, retries: RetryPolicy
    ) -> None:
        self._transport = transport
        self._tokens = tokens
        self._removal_tokens = removal_tokens
        self._retries = retries

    async def prestage(self, caches: Sequence[str], paths: Sequence[str]) -> list[str]:
        """Ask each cache (``host:port``) to fetch the objects at some paths; return a line for each that did not."""
        return await self._ask_all(caches, paths, self._prestage)

    async def evict(self, caches: Sequence[str], paths: Sequence[str]) -> list[str]:
        """Ask each cache to evict the objects at some paths; return a line for each that did not agree."""
        return await self._ask_all(caches, paths, self._evict)

    async def _ask_all(
        self, caches: Sequence[str], paths: Sequence[str], ask: Callable[[str, str], Awaitable[None]]
    ) -> list[str]:
        """Ask some caches at a time, one object after the other at each; after a failure a cache is asked for nothing more."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def ask_one(cache: str) -> str | None:
            async with slots:
                for path in paths:
                    try:
                        await self._retries.run(lambda: ask(cache, path))  # noqa: B023 - it is awaited here
                    except (OriginError, RetriesExhaustedError) as error:
                        return str(error)
            return None

        try:
            async with asyncio.timeout(DEADLINE):
                found = await asyncio.gather(*map(ask_one, caches))
        except TimeoutError:
            return [f"the caches have not answered within {DEADLINE / 60:.0f} min"]
        return [line for line in found if line is not None]

    async def _prestage(self, cache: str, path: str) -> None:
        """Raise OriginError or TransientError unless the cache has the object now."""
        url, action = _url(cache, "prestage", path), f"prestage {path}"
        headers = _authorization(self._tokens, READ, path)
        last = b""
        async with self._transport.open("GET", url, headers, total=DEADLINE) as response:
            if response.status != _OK:
                raise _no_api(cache) if response.status == NOT_FOUND else to_error(await read_refusal(response), action)
            received = 0
            async for chunk in response.chunks():
                received += len(chunk)
                if received > _LONGEST_TEXT:
                    raise OriginError(f"{cache} does not {action}: its answer does not end")
                last = (last + chunk)[-_LAST_LINE:]
        line = last.decode("utf-8", "replace").strip().rpartition("\n")[2].strip()
        if not line.startswith("success"):
            raise OriginError(f"{cache} does not {action}: {line or 'it says nothing'}")
        _log.info("%s has prestaged %s", cache, path)

    async def _evict(self, cache: str, path: str) -> None:
        """Raise OriginError or TransientError unless the cache agrees."""
        headers = _authorization(self._removal_tokens, MODIFY, path)
        async with self._transport.open("GET", _url(cache, "evict", path), headers) as response:
            if response.status != _OK:
                refusal = await read_refusal(response)
                raise _no_api(cache) if response.status == NOT_FOUND else to_error(refusal, f"evict {path}")
        _log.info("%s evicts %s", cache, path)


def _url(cache: str, action: str, path: str) -> URL:
    return URL(f"https://{cache}{_API}/{action}").with_query(path=path)


def _authorization(tokens: TokenSource, capability: str, path: str) -> dict[str, str]:
    token = tokens.bearer([TokenScope(capability, path)], "/")
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _no_api(cache: str) -> OriginError:
    return OriginError(f"{cache} has no API for this: status {NOT_FOUND}", hint="leave it out of the setting caches")
