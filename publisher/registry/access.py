"""Requests to endpoints with everything that they need: a rate limit, credentials, retries, and a pause while a host is down."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from publisher.errors import DeniedError, NotFoundError, PublisherError, UnavailableError
from publisher.net.retry import RetriesExhaustedError, TransientError
from publisher.registry.rate_limit import RateLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from yarl import URL

    from publisher.net.retry import RetryPolicy
    from publisher.net.server_dates import ServerDates
    from publisher.registry.authority import Authority
    from publisher.registry.endpoints import Endpoint
    from publisher.registry.transport import RegistryResponse, RegistryTransport

T = TypeVar("T")

_log = logging.getLogger(__name__)

_MAX_FAILURES = 5  # consecutive requests that failed after all their retries; then the endpoint is suspended
_SUSPENSION = 60.0  # seconds
_UNAUTHORIZED = 401


class Access:
    """Access to all endpoints.

    Args:
        transport: sends requests.
        authority: knows the ``Authorization`` headers.
        retry: the retry policy.
        concurrency: concurrent requests per endpoint.
        rates: the name of an endpoint -> requests per second.
        clock: returns seconds, monotonic.
        dates: gets the dates of the endpoints' own responses.
    """

    def __init__(
        self,
        transport: RegistryTransport,
        authority: Authority,
        retry: RetryPolicy,
        *,
        concurrency: int,
        rates: Mapping[str, float],
        clock: Callable[[], float],
        dates: ServerDates,
    ) -> None:
        self._transport = transport
        self._authority = authority
        self._retry = retry
        self._single_attempt = replace(retry, attempts=1)
        self._concurrency = concurrency
        self._rates = rates
        self._clock = clock
        self._dates = dates
        self._rate_limiters: dict[str, RateLimiter] = {}
        self._failures: dict[str, tuple[int, float]] = {}
        self._requests: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def open(
        self,
        method: str,
        endpoint: Endpoint,
        repository: str,
        resource: str | URL,
        headers: Mapping[str, str],
        *,
        small: bool = True,
        pull: bool = False,
    ) -> AsyncIterator[RegistryResponse]:
        """Send an authorized request; after a 401, repeat it once with the credentials that the response asks for.

        Args:
            method: GET or HEAD.
            endpoint: where to send it.
            repository: the repository's name in references.
            resource: a path below the repository, or the URL of a page at the endpoint.
            headers: its headers, without ``Authorization``.
            small: the timeout for small requests covers the whole response.
            pull: the request counts as a pull.

        Raises:
            DeniedError: the endpoint refuses the credentials too.
            TransientError: the request failed and may be retried.
            UnavailableError: the endpoint is suspended or rate-limited, or its response is invalid.
        """
        url = endpoint.resource(repository, resource) if isinstance(resource, str) else resource
        name_there, rate_limiter = endpoint.repository(repository), self._rate_limiter(endpoint.name)
        tried: list[str | None] = []
        async with rate_limiter.slot(pull=pull):
            self._check_health(endpoint.name)
            while (authorization := await self._authority.header(endpoint, name_there)) not in tried:
                tried.append(authorization)
                self._requests[endpoint.name] += 1
                all_headers = {**headers, **({} if authorization is None else {"Authorization": authorization})}
                async with self._transport.open(method, url, all_headers, small=small) as response:
                    if not response.is_redirected:
                        rate_limiter.record(response, pull=pull)
                        self._dates.record(endpoint.name, response.headers)
                    if response.status != _UNAUTHORIZED or response.is_redirected:
                        yield response
                        return
                    if len(tried) > 1:
                        break
                    challenges = response.headers.getall("WWW-Authenticate", [])
                    self._authority.record_challenges(endpoint, name_there, challenges, authorization)
            raise await self._authority.denial(endpoint, name_there)

    async def run(
        self,
        endpoint: Endpoint,
        attempt: Callable[[], Awaitable[T]],
        progress: Callable[[], int] = lambda: 0,
        *,
        single_attempt: bool = False,
    ) -> T:
        """Return the result of ``attempt()``, with retries, and record whether the endpoint is healthy.

        Args:
            endpoint: the endpoint that is asked.
            attempt: one attempt.
            progress: returns a number that grows while a transfer makes progress.
            single_attempt: make one attempt only, because another endpoint can be asked.

        Raises:
            RetriesExhaustedError: all attempts failed; and whatever ``attempt`` raises except TransientError.
            UnavailableError: the image was not found without credentials, and the configured ones are refused. It may exist.
        """
        name = endpoint.name

        async def logged_attempt() -> T:
            try:
                return await attempt()
            except (TransientError, PublisherError) as error:
                _log.debug("a request to %s failed: %s", name, error.reason)
                raise

        try:
            result = await (self._single_attempt if single_attempt else self._retry).run(logged_attempt, progress)
        except RetriesExhaustedError:
            self._failures[name] = (self._failures.get(name, (0, 0.0))[0] + 1, self._clock())
            raise
        except (NotFoundError, DeniedError) as error:
            self._failures.pop(name, None)
            if isinstance(error, NotFoundError) and self._authority.refuses_credentials(endpoint):
                reason = f"{error.reason} for anonymous clients, and it refuses the configured credentials"
                raise UnavailableError(reason, hint=f"renew them with docker login {name}") from error
            raise
        self._failures.pop(name, None)
        return result

    def use(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        """Return the number of requests by endpoint, and the pulls that remain, of endpoints that say so."""
        remaining = {name: limiter.remaining for name, limiter in self._rate_limiters.items()}
        return dict(self._requests), {name: pulls for name, pulls in remaining.items() if pulls is not None}

    def _rate_limiter(self, name: str) -> RateLimiter:
        if name not in self._rate_limiters:
            self._rate_limiters[name] = RateLimiter(
                name,
                concurrency=self._concurrency,
                rate=self._rates.get(name),
                max_wait=self._retry.max_retry_after,
                clock=self._clock,
                sleep=self._retry.sleep,
            )
        return self._rate_limiters[name]

    def _check_health(self, name: str) -> None:
        """Raise UnavailableError if an endpoint is suspended, so that thousands of images do not wait in turn for a dead host."""
        failures, last = self._failures.get(name, (0, 0.0))
        if failures >= _MAX_FAILURES and self._clock() - last < _SUSPENSION:
            raise UnavailableError(f"{name} failed {failures} times in a row, so no requests are sent to it for a minute")
