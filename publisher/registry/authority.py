"""What each registry wants to see before it answers: nothing, a password, or a token for each repository.

A registry is asked once (``GET /v2/``, distribution-spec 1.1, "end-1"), so that every request after it carries the right
header at once; a challenge to a later request goes before what was learnt then. Tokens are kept until they expire. Credentials
that a token service refuses for good are shown no more, and tokens asked for as anybody: most images are everybody's.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from yarl import URL

from publisher.errors import DeniedError, UnavailableError
from publisher.registry import challenge, credential_expiry
from publisher.registry import status as verdict
from publisher.registry.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.registry.challenge import Challenge
    from publisher.registry.credentials import Credentials
    from publisher.registry.endpoints import Endpoint
    from publisher.registry.transport import RegistryResponse, RegistryTransport
    from publisher.registry.warnings import RegistryWarnings

_BODY_LIMIT = 1 << 20
_DEFAULT_LIFE = 60  # seconds; distribution's token specification (docs/spec/auth/token.md, "expires_in")
_KEPT = 4096  # tokens; each is up to some kilobytes
_MARGIN = 10  # seconds before its end at which a token is no longer used
_OK, _BAD, _UNAUTHORIZED, _FORBIDDEN = 200, 400, 401, 403


@dataclass(frozen=True)
class _Token:
    header: str = field(repr=False)
    expires: float


class Authority:
    """Knows the ``Authorization`` header for each endpoint and repository.

    Args:
        transport: sends the requests.
        credentials: looked up once per endpoint, in a thread (a helper is another program).
        clock: seconds, monotonic.
        notices: take what is wrong with credentials.
    """

    def __init__(
        self,
        transport: RegistryTransport,
        credentials: Callable[[str], Credentials | None],
        clock: Callable[[], float],
        notices: RegistryWarnings,
    ) -> None:
        self._transport = transport
        self._look_up = credentials
        self._clock = clock
        self._notices = notices
        self._wanted: dict[str, Challenge | None] = {}
        self._scopes: dict[tuple[str, str], str] = {}
        self._credentials: dict[str, Credentials | None] = {}
        self._refused: dict[str, bool] = {}
        self._tokens: dict[tuple[str, str, str], _Token] = {}
        self._asking: SingleFlight[Challenge | None] = SingleFlight()
        self._looking_up: SingleFlight[Credentials | None] = SingleFlight()
        self._fetching: SingleFlight[_Token] = SingleFlight()
        self._trying: SingleFlight[bool] = SingleFlight()

    async def header(self, endpoint: Endpoint, repository: str) -> str | None:
        """The header for reading from a repository, None where none is wanted or to be had.

        Raises:
            DeniedError: the token service refuses us, or a password is known not to work.
            TransientError: registry or token service cannot be asked now.
            UnavailableError: they talk nonsense.
        """
        wanted = await self._challenge(endpoint)
        if wanted is None:
            return None
        if wanted.scheme == "basic":
            if self.refused(endpoint):
                raise await self.denied(endpoint, repository)
            credentials = await self.credentials(endpoint)
            return credentials.basic if credentials is not None and credentials.username else None
        scope = self._scopes.get((endpoint.name, repository), f"repository:{repository}:pull")
        key = (wanted.parameters["realm"], wanted.parameters.get("service", ""), scope)
        token = self._tokens.get(key)
        if token is None or token.expires <= self._clock():
            token = await self._fetching.get(key, lambda: self._fetch(endpoint, repository, key))
            self._tokens.pop(key, None)
            self._tokens[key] = token
            if len(self._tokens) > _KEPT:
                del self._tokens[next(iter(self._tokens))]
        return token.header

    def learn(self, endpoint: Endpoint, repository: str, headers: Sequence[str], refused: str | None) -> None:
        """Take note of a 401: of its challenges, and that the header ``refused`` does no longer.

        Raises:
            DeniedError: there is no way to authenticate that we know.
        """
        wanted = _chosen(headers)
        if wanted is None:
            raise DeniedError(f"{endpoint.name} refuses, and asks for no credentials that this program could show")
        self._wanted[endpoint.name] = wanted
        if "scope" in wanted.parameters:
            self._scopes[endpoint.name, repository] = wanted.parameters["scope"]
        for key in [key for key, token in self._tokens.items() if token.header == refused]:
            del self._tokens[key]

    async def denied(self, endpoint: Endpoint, repository: str) -> DeniedError:
        """The error for a registry that goes on refusing."""
        name, credentials = endpoint.name, await self.credentials(endpoint)
        if credentials is None:
            reason = f"{name} shows {repository} to nobody without credentials: it is private, or there is no such thing"
            return DeniedError(reason, hint=f"docker login {name}, if it should be published")
        wanted = self._wanted.get(name)
        if wanted is not None and wanted.scheme == "basic" and credentials.username and name not in self._refused:
            self._refused[name] = await self._trying.get(name, lambda: self._try(endpoint, credentials))
        if self._refused.get(name):
            return DeniedError(f"{name} refuses the configured credentials", hint=f"renew them with docker login {name}")
        return DeniedError(f"{name} does not show {repository} to the user whose credentials are configured")

    def refused(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint refuses the configured credentials; shown again for each image, they would lock the account."""
        return self._refused.get(endpoint.name, False)

    async def credentials(self, endpoint: Endpoint) -> Credentials | None:
        """What is configured for an endpoint. Raises UsageError."""
        name = endpoint.name
        if name not in self._credentials:
            found = await self._looking_up.get(name, lambda: asyncio.to_thread(self._look_up, name))
            self._credentials[name] = found
            ending = None if found is None else credential_expiry.notice(name, found, time.time())
            if ending is not None:
                self._notices.add(f"{name} expiry", ending)
        return self._credentials[name]

    async def _challenge(self, endpoint: Endpoint) -> Challenge | None:
        name = endpoint.name
        if name not in self._wanted:
            wanted = await self._asking.get(name, lambda: self._ask(endpoint))
            self._wanted.setdefault(name, wanted)  # another task may have learnt better
        return self._wanted[name]

    async def _ask(self, endpoint: Endpoint) -> Challenge | None:
        async with self._transport.open("GET", endpoint.url / "v2/", {}) as answer:
            verdict.busy(answer)
            return _chosen(answer.headers.getall("WWW-Authenticate", [])) if answer.status == _UNAUTHORIZED else None

    async def _try(self, endpoint: Endpoint, credentials: Credentials) -> bool:
        """Whether a password is refused where ``docker login`` tries it, and not only for one repository."""
        async with self._transport.open("GET", endpoint.url / "v2/", {"Authorization": credentials.basic}) as answer:
            verdict.busy(answer)
            refused = answer.status == _UNAUTHORIZED and not answer.away
        if refused:
            self._tell_refused(endpoint, answer.status)
        return refused

    def _tell_refused(self, endpoint: Endpoint, status: int) -> None:
        text = f"the credentials for {endpoint.name} are refused ({status}): they are wrong, have expired or were revoked"
        self._notices.add(f"{endpoint.name} credentials", text)

    async def _fetch(self, endpoint: Endpoint, repository: str, key: tuple[str, str, str]) -> _Token:
        """A new token (docs/spec/auth/token.md and oauth.md of distribution)."""
        url, service, scope = _realm(endpoint, key[0]), key[1], key[2]
        credentials = None if self.refused(endpoint) else await self.credentials(endpoint)
        fields = [("service", service)] if service else []
        if credentials is not None and credentials.identity_token:
            form = dict(fields) | {"grant_type": "refresh_token", "client_id": "ospool-image-publisher", "scope": scope}
            form["refresh_token"] = credentials.identity_token
            request = self._transport.open("POST", url, {}, form=form)
        else:
            url = url.with_query([*url.query.items(), *fields, *(("scope", one) for one in scope.split(" "))])
            headers = {} if credentials is None else {"Authorization": credentials.basic}
            request = self._transport.open("GET", url, headers)
        async with request as answer:
            refused = answer.status in (_UNAUTHORIZED, _FORBIDDEN, _BAD) and not answer.away
            if not refused or not await self._refuse(endpoint, repository, answer, credentials):
                verdict.busy(answer)
                return self._token(answer, await answer.body(_BODY_LIMIT))
        return await self._fetch(endpoint, repository, key)

    async def _refuse(
        self, endpoint: Endpoint, repository: str, answer: RegistryResponse, credentials: Credentials | None
    ) -> bool:
        """Whether a token service refuses credentials for good: with 401, or 400 for an identity token (RFC 6749, 5.2).

        Raises:
            DeniedError: it refuses, and that may be meant for the repository alone; or there were no credentials.
        """
        with_token = credentials is not None and bool(credentials.identity_token)
        if answer.status == _BAD and not with_token:
            return False
        if credentials is not None:
            self._tell_refused(endpoint, answer.status)
            self._refused[endpoint.name] = answer.status != _FORBIDDEN
        if credentials is not None and self.refused(endpoint):
            return True
        raise await self.denied(endpoint, repository)

    def _token(self, answer: RegistryResponse, body: bytes) -> _Token:
        try:
            fields = json.loads(body)
            token = fields.get("token") or fields.get("access_token")
            life = float(fields.get("expires_in") or _DEFAULT_LIFE)
        except (ValueError, TypeError, AttributeError, RecursionError):
            token, life = None, 0.0
        if answer.status != _OK or not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise UnavailableError(f"the token service {answer.host} answers {answer.status} without a token")
        return _Token(f"Bearer {token}", self._clock() + life - _MARGIN)


def _chosen(headers: Sequence[str]) -> Challenge | None:
    """A token goes before a password, as with Docker."""
    offered = challenge.parse(headers)
    bearer = [one for one in offered if one.scheme == "bearer" and one.parameters.get("realm")]
    return next(iter(bearer or [one for one in offered if one.scheme == "basic"]), None)


def _realm(endpoint: Endpoint, realm: str) -> URL:
    """Where the token service is. What is asked for over TLS does not send passwords to a place without."""
    try:
        url = URL(realm)
        if url.host and url.scheme in ("https", endpoint.url.scheme):
            return url.with_user(None)
    except ValueError:
        pass
    raise UnavailableError(f"{endpoint.name} names a token service that is not asked (only https is)")
