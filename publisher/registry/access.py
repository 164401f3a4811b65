"""One request to one endpoint: in its turn, with what the endpoint wants to see, and not at all while it is down."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from publisher.errors import DeniedError, NotFoundError, UnavailableError
from publisher.net.retry import RetriesExhaustedError
from publisher.registry.rate_limit import RateLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from yarl import URL

    from publisher.net.retry import RetryPolicy
    from publisher.registry.authority import Authority
    from publisher.registry.endpoints import Endpoint
    from publisher.registry.transport import RegistryResponse, RegistryTransport

T = TypeVar("T")

_FAILURES = 5  # requests in a row, all their tries used up, after which an endpoint is left alone
_PAUSE = 60.0  # seconds of that
_UNAUTHORIZED = 401


class Access:
    """To all endpoints.

    Args:
        transport: sends requests.
        authority: knows what endpoints want to see.
        patience: what is tried again, and how often.
        concurrency: requests at a time, per endpoint.
        rates: endpoint's name -> requests per second.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        transport: RegistryTransport,
        authority: Authority,
        patience: RetryPolicy,
        *,
        concurrency: int,
        rates: Mapping[str, float],
        clock: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._authority = authority
        self._patience = patience
        self._hasty = replace(patience, tries=1)
        self._concurrency = concurrency
        self._rates = rates
        self._clock = clock
        self._paces: dict[str, RateLimiter] = {}
        self._failed: dict[str, tuple[int, float]] = {}

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
        """A request with what the endpoint wants to see; a 401 is answered once with something better.

        Args:
            method: GET or HEAD.
            endpoint: who is asked.
            repository: its registry's name for it.
            resource: a path below the repository, or the URL of a page at the endpoint.
            headers: sent along.
            small: the deadline for small requests covers the whole answer.
            pull: it counts as a pull.

        Raises:
            DeniedError: the endpoint goes on refusing.
            TransientError: no answer now.
            UnavailableError: it is left alone, or talks nonsense.
        """
        url = endpoint.resource(repository, resource) if isinstance(resource, str) else resource
        within, pace = endpoint.repository(repository), self._pace(endpoint.name)
        sent: list[str | None] = []
        async with pace.turn(pull=pull):
            self._check_health(endpoint.name)
            while (shown := await self._authority.header(endpoint, within)) not in sent:
                sent.append(shown)
                full = {**headers, **({} if shown is None else {"Authorization": shown})}
                async with self._transport.open(method, url, full, small=small) as answer:
                    if not answer.away:
                        pace.note(answer, pull=pull)
                    if answer.status != _UNAUTHORIZED or answer.away:
                        yield answer
                        return
                    if len(sent) > 1:
                        break
                    self._authority.learn(endpoint, within, answer.headers.getall("WWW-Authenticate", []), shown)
            raise await self._authority.denied(endpoint, within)

    async def patiently(
        self,
        endpoint: Endpoint,
        attempt: Callable[[], Awaitable[T]],
        gained: Callable[[], int] = lambda: 0,
        *,
        hasty: bool = False,
    ) -> T:
        """Await ``attempt()`` until it succeeds or patience ends, and remember how the endpoint does.

        Args:
            endpoint: who is asked.
            attempt: one try.
            gained: grows while a transfer gets on.
            hasty: one try and no more: there is somebody else to ask.

        Raises:
            RetriesExhaustedError: no more patience; and whatever ``attempt`` raises but TransientError.
            UnavailableError: there is no such thing for who shows no credentials, and ours are refused: that says nothing.
        """
        name = endpoint.name
        try:
            result = await (self._hasty if hasty else self._patience).run(attempt, gained)
        except RetriesExhaustedError:
            self._failed[name] = (self._failed.get(name, (0, 0.0))[0] + 1, self._clock())
            raise
        except (NotFoundError, DeniedError) as error:
            self._failed.pop(name, None)
            if isinstance(error, NotFoundError) and self._authority.refused(endpoint):
                reason = f"{error.reason} that it shows to everybody, and it refuses the configured credentials"
                raise UnavailableError(reason, hint=f"renew them with docker login {name}") from error
            raise
        self._failed.pop(name, None)
        return result

    def _pace(self, name: str) -> RateLimiter:
        if name not in self._paces:
            patience = self._patience
            self._paces[name] = RateLimiter(
                name,
                concurrency=self._concurrency,
                rate=self._rates.get(name),
                longest=patience.obeyed,
                clock=self._clock,
                sleep=patience.sleep,
            )
        return self._paces[name]

    def _check_health(self, name: str) -> None:
        """Thousands of references to a registry that is down shall not wait for it one after the other."""
        failed, last = self._failed.get(name, (0, 0.0))
        if failed >= _FAILURES and self._clock() - last < _PAUSE:
            raise UnavailableError(f"{name} failed {failed} times in a row and is left alone for now")
