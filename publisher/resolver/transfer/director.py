"""The director of a Pelican federation, which knows the servers of every object.

Discovery (``/.well-known/pelican-configuration`` of the federation's host) gives the URL of the director. Its redirects are read
and not followed. Answers are cached for all jobs of the host (:mod:`publisher.resolver.transfer.director_cache`), and expired
ones are used while the director does not answer. https://docs.pelicanplatform.org, director/ of PelicanPlatform/pelican.
"""

from __future__ import annotations

import json
import time
import urllib.parse

from publisher.resolver.errors import AbsentError, AccessDeniedError, FetchError
from publisher.resolver.system import log, negative_cache
from publisher.resolver.transfer import http
from publisher.resolver.transfer.director_cache import DirectorCache, host_digest
from publisher.resolver.transfer.director_response import DirectorError, DirectorResponse
from publisher.resolver.transfer.watchdog import TransferDeadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPResponse
    from typing import TypeVar

    from publisher.resolver.transfer.sources import NetworkOptions

    T = TypeVar("T")

_DISCOVERY = "/.well-known/pelican-configuration"
_MAX_BYTES = 1 << 16  # of the discovery document
_ATTEMPTS = 4
_FIRST_PAUSE, _MAX_PAUSE = 0.5, 5.0  # seconds
_REQUEST_TIMEOUT = 10.0  # seconds
_TOO_MANY_REQUESTS = 429  # also the answer of a director that has just started


class Director:
    """A client of one federation's director.

    Args:
        host: host of the federation, with a port if necessary.
        network: how the network is used.
        sleep: sleeps for some seconds.
        clock: returns seconds since the epoch.
    """

    def __init__(
        self,
        host: str,
        network: NetworkOptions,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._host = host
        self._failure_key = f"director-{host_digest(host)}"
        self._network = network
        self._sleep = sleep
        self._clock = clock

    def find(self, path: str, *, direct: bool, refresh: bool = False, until: float | None = None) -> DirectorResponse:
        """Return which servers have an object.

        Args:
            path: path of the object in the federation.
            direct: find its origin rather than the caches.
            refresh: ask the director even if its answer is cached.
            until: reading of the monotonic clock after which nobody needs the answer any more.

        Raises:
            AbsentError: the federation has no such namespace or object.
            AccessDeniedError: the director refuses.
            DirectorError: the answer is unusable.
            FetchError: there is no answer.
        """
        cache = DirectorCache(self._network.root, self._host, self._clock())
        cached = cache.find(path, direct=direct)
        if cached is not None and not refresh:
            return cached
        try:
            response = self._ask(cache, path, direct=direct, refresh=refresh, until=until)
        except (AbsentError, AccessDeniedError):
            raise
        except FetchError as error:
            expired = cache.find(path, direct=direct, expired=True)
            if expired is None:
                raise
            log.info("using an expired answer of the director, since it failed: %s", error)
            return expired
        cache.add(response, direct=direct)
        return response

    def _ask(self, cache: DirectorCache, path: str, *, direct: bool, refresh: bool, until: float | None) -> DirectorResponse:
        """Ask the director; the arguments and errors are those of :meth:`find`. ``refresh`` also ignores recent failures."""
        root, now = self._network.root, self._clock()
        reason = None if root is None or refresh else negative_cache.recent_failure(root, self._failure_key, now)
        if reason is not None:
            raise FetchError(f"not retried yet: {reason}")
        attempts = 1 if refresh else _ATTEMPTS
        query = "?directread" if direct else ""
        try:
            url = cache.director() or self._discover(cache, attempts, until)
            address = f"{url}{urllib.parse.quote(path)}{query}"
            answer = self._retry(address, attempts, until, lambda response: DirectorResponse.parse(response, path))
        except (AbsentError, AccessDeniedError, DirectorError):
            raise
        except FetchError as error:
            if root is not None and (until is None or time.monotonic() < until):  # otherwise only this job ran out of time
                negative_cache.record_failure(root, self._failure_key, str(error), now)
            raise
        if root is not None:
            negative_cache.clear(root, self._failure_key)
        return answer

    def _discover(self, cache: DirectorCache, attempts: int, until: float | None) -> str:
        """Return the URL of the director from the federation's discovery document, and cache it."""
        url = self._retry(f"https://{self._host}{_DISCOVERY}", attempts, until, _parse_discovery)
        cache.set_director(url)
        return url

    def _retry(self, address: str, attempts: int, until: float | None, parse: Callable[[HTTPResponse], T]) -> T:
        """Return what ``parse`` makes of the response. Transient failures are retried with growing pauses.

        Raises:
            FetchError: see :meth:`find`.
        """
        pause = _FIRST_PAUSE
        for attempt in range(1, attempts + 1):
            timeout = _REQUEST_TIMEOUT if until is None else min(_REQUEST_TIMEOUT, until - time.monotonic())
            try:
                deadline = TransferDeadline(time.monotonic, time.monotonic() + timeout)
                with http.get(address, self._network, deadline=deadline, follow=address.endswith(_DISCOVERY)) as response:
                    wait = _retry_after(response)
                    if wait is None:
                        return parse(response)
                    error = FetchError(f"status {response.status} {response.reason}")
            except (AbsentError, AccessDeniedError):
                raise
            except FetchError as problem:
                error, wait = problem, 0.0
            host = urllib.parse.urlsplit(address).netloc
            log.info("%s failed, attempt %d of %d: %s", host, attempt, attempts, error)
            wait = max(wait, pause * negative_cache.jitter())
            is_last = attempt == attempts or isinstance(error, DirectorError)
            if is_last or (until is not None and time.monotonic() + wait > until):
                raise type(error)(f"{host}: {error}")
            self._sleep(wait)
            pause = min(_MAX_PAUSE, 2 * pause)
        raise AssertionError  # the loop ends otherwise


def _parse_discovery(response: HTTPResponse) -> str:
    """Return the URL of the director in a response to discovery. Raise FetchError if there is none."""
    if response.status != 200:  # noqa: PLR2004 - success
        raise FetchError(f"not a Pelican federation: status {response.status} {response.reason}")
    try:
        url = json.loads(response.read(_MAX_BYTES))["director_endpoint"]
    except (ValueError, LookupError, TypeError):
        url = None
    if not isinstance(url, str) or not url.startswith("https://"):
        raise FetchError("the configuration of the federation names no director")
    return url.rstrip("/")


def _retry_after(response: HTTPResponse) -> float | None:
    """Return the seconds to wait before a retry, or None if the response is final.

    A 404 is final only if a director sent it: while one starts, the proxy before it answers 404.
    """
    header = response.headers.get("Retry-After", "")
    wait = min(float(header), _MAX_PAUSE) if header.isascii() and header.isdigit() else 0.0
    if response.status == _TOO_MANY_REQUESTS or response.status >= 500:  # noqa: PLR2004 - failures of the server
        return wait
    is_director = response.headers.get("Server", "").startswith("pelican/") or "json" in response.headers.get("Content-Type", "")
    return wait if response.status == 404 and not is_director else None  # noqa: PLR2004 - not found
