"""Authorization for registries: none, a password, or a token per repository.

A registry is asked once (``GET /v2/``, distribution-spec 1.1, "end-1") how it authenticates, so that each later request has the
right header at once; the challenge in a later response takes precedence. Tokens are kept until they expire. If a token service
refuses the credentials for good, they are not sent again and tokens are requested anonymously, because most images are public.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from yarl import URL

from publisher.errors import DeniedError, UnavailableError
from publisher.registry import challenge, credential_expiry, status
from publisher.registry.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.registry.challenge import Challenge
    from publisher.registry.credentials import Credentials
    from publisher.registry.endpoints import Endpoint
    from publisher.registry.transport import RegistryResponse, RegistryTransport
    from publisher.registry.warnings import RegistryWarnings

_log = logging.getLogger(__name__)

_BODY_LIMIT = 1 << 20
_DEFAULT_LIFETIME = 60  # seconds; distribution's token specification (docs/spec/auth/token.md, "expires_in")
_MAX_TOKENS = 4096  # kept at a time; each has up to some kilobytes
_MARGIN = 10  # seconds before its expiry from which a token is no longer used
_OK, _BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN = 200, 400, 401, 403


@dataclass(frozen=True)
class _Token:
    header: str = field(repr=False)
    expires: float


class Authority:
    """Provides the ``Authorization`` header for each endpoint and repository.

    Args:
        transport: sends the requests.
        credentials: returns the credentials for an endpoint's name; called once per endpoint, in a thread, because a credential
            helper is another program.
        clock: returns seconds, monotonic.
        warnings: collects warnings about credentials.
    """

    def __init__(
        self,
        transport: RegistryTransport,
        credentials: Callable[[str], Credentials | None],
        clock: Callable[[], float],
        warnings: RegistryWarnings,
    ) -> None:
        self._transport = transport
        self._look_up = credentials
        self._clock = clock
        self._warnings = warnings
        self._challenges: dict[str, Challenge | None] = {}
        self._scopes: dict[tuple[str, str], str] = {}
        self._credentials: dict[str, Credentials | None] = {}
        self._refuses: dict[str, bool] = {}
        self._tokens: dict[tuple[str, str, str], _Token] = {}
        self._challenge_requests: SingleFlight[Challenge | None] = SingleFlight()
        self._look_ups: SingleFlight[Credentials | None] = SingleFlight()
        self._token_requests: SingleFlight[_Token] = SingleFlight()
        self._password_tests: SingleFlight[bool] = SingleFlight()

    async def header(self, endpoint: Endpoint, repository: str) -> str | None:
        """Return the header for reading from a repository, None if none is needed or available.

        Raises:
            DeniedError: the token service denies access, or the endpoint is known to refuse the password.
            TransientError: the request to the registry or token service failed and may be retried.
            UnavailableError: the response of the registry or token service is invalid.
        """
        wanted = await self._challenge(endpoint)
        if wanted is None:
            return None
        if wanted.scheme == "basic":
            if self.refuses_credentials(endpoint):
                raise await self.denial(endpoint, repository)
            credentials = await self.credentials(endpoint)
            return credentials.basic if credentials is not None and credentials.username else None
        scope = self._scopes.get((endpoint.name, repository), f"repository:{repository}:pull")
        key = (wanted.parameters["realm"], wanted.parameters.get("service", ""), scope)
        token = self._tokens.get(key)
        if token is None or token.expires <= self._clock():
            token = await self._token_requests.get(key, lambda: self._request_token(endpoint, repository, key))
            self._tokens.pop(key, None)
            self._tokens[key] = token
            if len(self._tokens) > _MAX_TOKENS:
                del self._tokens[next(iter(self._tokens))]
        return token.header

    def record_challenges(self, endpoint: Endpoint, repository: str, headers: Sequence[str], refused: str | None) -> None:
        """Record a 401: its ``WWW-Authenticate`` headers, and the ``Authorization`` header that it refused.

        Raises:
            DeniedError: the headers offer no supported authentication.
        """
        wanted = _choose_challenge(headers)
        if wanted is None:
            raise DeniedError(f"{endpoint.name} denies access and offers no supported authentication (basic or bearer)")
        self._challenges[endpoint.name] = wanted
        if "scope" in wanted.parameters:
            self._scopes[endpoint.name, repository] = wanted.parameters["scope"]
        for key in [key for key, token in self._tokens.items() if token.header == refused]:
            del self._tokens[key]

    async def denial(self, endpoint: Endpoint, repository: str) -> DeniedError:
        """Return the error for an endpoint that denies access to a repository."""
        name, credentials = endpoint.name, await self.credentials(endpoint)
        if credentials is None:
            reason = f"{name} denies anonymous access to {repository}: it is private or does not exist"
            return DeniedError(reason, hint=f"run docker login {name} if it should be published")
        wanted = self._challenges.get(name)
        if wanted is not None and wanted.scheme == "basic" and credentials.username and name not in self._refuses:
            self._refuses[name] = await self._password_tests.get(name, lambda: self._is_password_refused(endpoint, credentials))
        if self._refuses.get(name):
            return DeniedError(f"{name} refuses the configured credentials", hint=f"renew them with docker login {name}")
        return DeniedError(f"{name} denies access to {repository} for the configured user")

    def refuses_credentials(self, endpoint: Endpoint) -> bool:
        """Return whether an endpoint has refused the configured credentials. Sending them again could lock the account."""
        return self._refuses.get(endpoint.name, False)

    async def credentials(self, endpoint: Endpoint) -> Credentials | None:
        """Return the configured credentials for an endpoint, None if there are none. Raises UsageError."""
        name = endpoint.name
        if name not in self._credentials:
            credentials = await self._look_ups.get(name, lambda: asyncio.to_thread(self._look_up, name))
            self._credentials[name] = credentials
            warning = None if credentials is None else credential_expiry.expiry_warning(name, credentials, time.time())
            if warning is not None:
                self._warnings.add(f"{name} expiry", warning)
        return self._credentials[name]

    async def _challenge(self, endpoint: Endpoint) -> Challenge | None:
        name = endpoint.name
        if name not in self._challenges:
            wanted = await self._challenge_requests.get(name, lambda: self._request_challenge(endpoint))
            self._challenges.setdefault(name, wanted)  # another task may have recorded a later one
        return self._challenges[name]

    async def _request_challenge(self, endpoint: Endpoint) -> Challenge | None:
        async with self._transport.open("GET", endpoint.url / "v2/", {}) as response:
            status.raise_if_transient(response)
            if response.status != _UNAUTHORIZED:
                return None
            return _choose_challenge(response.headers.getall("WWW-Authenticate", []))

    async def _is_password_refused(self, endpoint: Endpoint, credentials: Credentials) -> bool:
        """Return whether a password is refused for the whole registry, with the request that ``docker login`` tests it with."""
        headers = {"Authorization": credentials.basic}
        async with self._transport.open("GET", endpoint.url / "v2/", headers) as response:
            status.raise_if_transient(response)
            refused = response.status == _UNAUTHORIZED and not response.is_redirected
        if refused:
            self._warn_refused(endpoint, response.status)
        return refused

    def _warn_refused(self, endpoint: Endpoint, status_code: int) -> None:
        text = f"{endpoint.name} refuses the configured credentials ({status_code}): they are wrong, expired or revoked"
        self._warnings.add(f"{endpoint.name} credentials", text)

    async def _request_token(self, endpoint: Endpoint, repository: str, key: tuple[str, str, str]) -> _Token:
        """Return a new token for a realm, service and scope (docs/spec/auth/token.md and oauth.md of distribution)."""
        url, service, scope = _realm_url(endpoint, key[0]), key[1], key[2]
        credentials = None if self.refuses_credentials(endpoint) else await self.credentials(endpoint)
        fields = [("service", service)] if service else []
        _log.debug(
            "requesting a token for %s of %s %s", repository, endpoint.name, "anonymously" if credentials is None else "as a user"
        )
        if credentials is not None and credentials.identity_token:
            form = dict(fields) | {"grant_type": "refresh_token", "client_id": "ospool-image-publisher", "scope": scope}
            form["refresh_token"] = credentials.identity_token
            request = self._transport.open("POST", url, {}, form=form)
        else:
            url = url.with_query([*url.query.items(), *fields, *(("scope", part) for part in scope.split(" "))])
            headers = {} if credentials is None else {"Authorization": credentials.basic}
            request = self._transport.open("GET", url, headers)
        async with request as response:
            is_refused = response.status in (_UNAUTHORIZED, _FORBIDDEN, _BAD_REQUEST) and not response.is_redirected
            if not is_refused or not await self._record_refusal(endpoint, repository, response, credentials):
                status.raise_if_transient(response)
                return self._parse_token(response, await response.body(_BODY_LIMIT))
        return await self._request_token(endpoint, repository, key)

    async def _record_refusal(
        self, endpoint: Endpoint, repository: str, response: RegistryResponse, credentials: Credentials | None
    ) -> bool:
        """Return whether a token service refuses the credentials for good (401, or 400 for an identity token: RFC 6749, 5.2).

        Raises:
            DeniedError: the token service denies access, perhaps to this repository only, or there were no credentials.
        """
        has_identity_token = credentials is not None and bool(credentials.identity_token)
        if response.status == _BAD_REQUEST and not has_identity_token:
            return False
        if credentials is not None:
            self._warn_refused(endpoint, response.status)
            self._refuses[endpoint.name] = response.status != _FORBIDDEN
        if credentials is not None and self.refuses_credentials(endpoint):
            return True
        raise await self.denial(endpoint, repository)

    def _parse_token(self, response: RegistryResponse, body: bytes) -> _Token:
        try:
            fields = json.loads(body)
            token = fields.get("token") or fields.get("access_token")
            lifetime = float(fields.get("expires_in") or _DEFAULT_LIFETIME)
        except (ValueError, TypeError, AttributeError, RecursionError):
            token, lifetime = None, 0.0
        if response.status != _OK or not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise UnavailableError(f"the token service {response.host} answered {response.status} without a token")
        return _Token(f"Bearer {token}", self._clock() + lifetime - _MARGIN)


def _choose_challenge(headers: Sequence[str]) -> Challenge | None:
    """Return the challenge to answer: a token takes precedence over a password, as in Docker."""
    offered = challenge.parse(headers)
    bearer = [offer for offer in offered if offer.scheme == "bearer" and offer.parameters.get("realm")]
    return next(iter(bearer or [offer for offer in offered if offer.scheme == "basic"]), None)


def _realm_url(endpoint: Endpoint, realm: str) -> URL:
    """Return the token service's URL; a registry with TLS cannot make this program send passwords without TLS."""
    try:
        url = URL(realm)
        if url.host and url.scheme in ("https", endpoint.url.scheme):
            return url.with_user(None)
    except ValueError:
        pass
    raise UnavailableError(f"{endpoint.name} names a token service that is not used: its URL is invalid or not https")
