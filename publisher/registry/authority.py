"""What each registry wants to see before it answers: nothing, a password, or a token for each repository.

A registry is asked once (``GET /v2/``, distribution-spec 1.1, "end-1"), so that every request after it carries the right
header at once; a challenge to a later request goes before what was learnt then. Tokens are kept until they expire.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from yarl import URL

from publisher.errors import DeniedError, UnavailableError
from publisher.registry import challenge, verdict
from publisher.registry.single import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from publisher.registry.challenge import Challenge
    from publisher.registry.credentials import Credentials
    from publisher.registry.transport import Answer, Transport

_BODY_LIMIT = 1 << 20
_DEFAULT_LIFE = 60  # seconds; distribution's token specification (docs/spec/auth/token.md, "expires_in")
_MARGIN = 10  # seconds before its end at which a token is no longer used
_UNAUTHORIZED, _FORBIDDEN, _OK = 401, 403, 200


@dataclass(frozen=True)
class _Token:
    header: str = field(repr=False)
    expires: float


class Authority:
    """Knows the ``Authorization`` header for each registry and repository.

    Args:
        transport: sends the requests.
        base: the URL of a registry's API.
        credentials: looked up once per registry, in a thread (a helper is another program).
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        transport: Transport,
        base: Callable[[str], URL],
        credentials: Callable[[str], Credentials | None],
        clock: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._base = base
        self._look_up = credentials
        self._clock = clock
        self._wanted: dict[str, Challenge | None] = {}
        self._scopes: dict[tuple[str, str], str] = {}
        self._credentials: dict[str, Credentials | None] = {}
        self._tokens: dict[tuple[str, str, str], _Token] = {}
        self._asking: SingleFlight[Challenge | None] = SingleFlight()
        self._looking_up: SingleFlight[Credentials | None] = SingleFlight()
        self._fetching: SingleFlight[_Token] = SingleFlight()

    async def header(self, registry: str, repository: str) -> str | None:
        """The header for reading from a repository, None where none is wanted or to be had.

        Raises:
            DeniedError: the token service refuses us.
            TransientError: registry or token service cannot be asked now.
            UnavailableError: they talk nonsense.
        """
        wanted = await self._challenge(registry)
        if wanted is None:
            return None
        if wanted.scheme == "basic":
            credentials = await self._credentials_for(registry)
            return credentials.basic if credentials is not None and credentials.username else None
        scope = self._scopes.get((registry, repository), f"repository:{repository}:pull")
        key = (wanted.parameters["realm"], wanted.parameters.get("service", ""), scope)
        token = self._tokens.get(key)
        if token is None or token.expires <= self._clock():
            token = await self._fetching.get(key, lambda: self._fetch(registry, repository, key))
            self._tokens[key] = token
        return token.header

    def learn(self, registry: str, repository: str, headers: Sequence[str], refused: str | None) -> None:
        """Take note of a 401: of its challenges, and that the header ``refused`` does no longer.

        Raises:
            DeniedError: there is no way to authenticate that we know.
        """
        wanted = _chosen(headers)
        if wanted is None:
            raise DeniedError(f"{registry} refuses, and asks for no credentials that this program could show")
        self._wanted[registry] = wanted
        if "scope" in wanted.parameters:
            self._scopes[registry, repository] = wanted.parameters["scope"]
        for key in [key for key, token in self._tokens.items() if token.header == refused]:
            del self._tokens[key]

    async def denied(self, registry: str, repository: str) -> DeniedError:
        """The error for a registry that goes on refusing."""
        if await self._credentials_for(registry) is None:
            reason = f"{registry} shows {repository} to nobody without credentials: it is private, or there is no such thing"
            return DeniedError(reason, hint=f"docker login {registry}, if it should be published")
        return DeniedError(f"{registry} does not show {repository} to the user whose credentials are configured")

    async def _challenge(self, registry: str) -> Challenge | None:
        if registry not in self._wanted:
            wanted = await self._asking.get(registry, lambda: self._ask(registry))
            self._wanted.setdefault(registry, wanted)  # another task may have learnt better
        return self._wanted[registry]

    async def _ask(self, registry: str) -> Challenge | None:
        async with self._transport.open("GET", self._base(registry) / "v2/", {}) as answer:
            verdict.busy(answer)
            return _chosen(answer.headers.getall("WWW-Authenticate", [])) if answer.status == _UNAUTHORIZED else None

    async def _credentials_for(self, registry: str) -> Credentials | None:
        if registry not in self._credentials:
            look_up = self._looking_up.get(registry, lambda: asyncio.to_thread(self._look_up, registry))
            self._credentials[registry] = await look_up
        return self._credentials[registry]

    async def _fetch(self, registry: str, repository: str, key: tuple[str, str, str]) -> _Token:
        """A new token (docs/spec/auth/token.md and oauth.md of distribution)."""
        url, service, scope = self._realm(registry, key[0]), key[1], key[2]
        credentials = await self._credentials_for(registry)
        fields = [("service", service)] if service else []
        scopes = scope.split(" ")
        if credentials is not None and credentials.identity_token:
            form = dict(fields) | {"grant_type": "refresh_token", "client_id": "ospool-image-publisher", "scope": scope}
            form["refresh_token"] = credentials.identity_token
            request = self._transport.open("POST", url, {}, form=form)
        else:
            url = url.with_query([*url.query.items(), *fields, *(("scope", one) for one in scopes)])
            headers = {} if credentials is None else {"Authorization": credentials.basic}
            request = self._transport.open("GET", url, headers)
        async with request as answer:
            if answer.status in (_UNAUTHORIZED, _FORBIDDEN) and not answer.away:
                raise await self.denied(registry, repository)
            verdict.busy(answer)
            return self._token(answer, await answer.body(_BODY_LIMIT))

    def _realm(self, registry: str, realm: str) -> URL:
        """Where the token service is. What is asked for over TLS does not send passwords to a place without."""
        try:
            url = URL(realm)
            allowed = ("https", self._base(registry).scheme)
            if url.host and url.scheme in allowed:
                return url.with_user(None)
        except ValueError:
            pass
        raise UnavailableError(f"{registry} names a token service that is not asked (only https is)")

    def _token(self, answer: Answer, body: bytes) -> _Token:
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
