from __future__ import annotations

import asyncio
import urllib.parse
from typing import TYPE_CHECKING

import pytest

from publisher.contract.reference import DOCKER_HUB, Reference
from publisher.errors import DeniedError, UnavailableError
from publisher.registry.client import RegistryClient
from publisher.registry.credentials import Credentials
from publisher.registry.endpoints import Endpoints
from tests.support.loopback import LOOPBACK
from tests.support.registries.scripted_http import ScriptedServer, says
from tests.support.registries.scripted_registry import BODY, DIGEST, HERE, MANIFEST, scripted_client

if TYPE_CHECKING:
    from aiohttp import web

    from tests.support.registries.scripted_http import Reply
    from tests.support.registries.scripted_registry import ScriptedClient

ME = Credentials("me", "s3cret-pass")
SERVICE = "registry, the quoted one"


def wants(header: str, then: Reply = says(200, BODY, **HERE), scope: str = "") -> Reply:  # noqa: B008 - it is never changed
    """Return a reply of 401 to requests without the ``Authorization`` header ``header``."""

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Authorization") == header:
            return await then(request)
        realm = f"http://{request.host}/token"
        return await says(401, WWW_Authenticate=f'Bearer realm="{realm}",service="{SERVICE}"{scope}')(request)

    return reply


def guarded(token: str, **more: list[Reply]) -> dict[str, list[Reply]]:
    """Return the routes of a registry that needs the token ``right`` for ``a/b:1``."""
    issued = says(200, token)
    return {
        "GET /v2/": [wants("")],
        f"HEAD {MANIFEST}": [wants("Bearer right")],
        "GET /token": [issued],
        "POST /token": [issued],
        **more,
    }


def query(it: ScriptedClient, at: int = -1) -> dict[str, list[str]]:
    """Return the fields of the token request number ``at``."""
    asked = [asked for asked in it.registry.asked if asked.path == "/token"]
    return urllib.parse.parse_qs(asked[at].query or asked[at].body.decode())


RIGHT = '{"token": "right", "expires_in": 300}'


@pytest.mark.parametrize(
    "answer", [RIGHT, '{"access_token": "right"}', '{"token": "", "access_token": "right", "expires_in": null}']
)
async def test_a_token_is_fetched_as_the_registry_says_and_each_tag_still_costs_one_head(answer: str) -> None:
    async with scripted_client(guarded(answer)) as it:
        for _ in range(3):
            assert (await it.head()).digest == DIGEST
        assert it.registry.lines == ["GET /v2/", "GET /token", *[f"HEAD {MANIFEST}"] * 3]
        assert query(it) == {"service": [SERVICE], "scope": ["repository:a/b:pull"]}
        assert "authorization" not in it.registry.asked[1].headers


async def test_tasks_that_need_the_same_token_fetch_it_once() -> None:
    async with scripted_client(guarded(RIGHT)) as it:
        await asyncio.gather(*(it.head() for _ in range(8)))
        assert it.registry.lines.count("GET /token") == 1


async def test_each_repository_gets_its_own_token() -> None:
    async with scripted_client(guarded(RIGHT, **{"HEAD /v2/c/d/manifests/2": [wants("Bearer right")]})) as it:
        await it.head()
        await it.client.head(Reference(it.registry.address, "c/d", "2"))
        assert [query(it, at)["scope"] for at in (0, 1)] == [["repository:a/b:pull"], ["repository:c/d:pull"]]


async def test_a_token_is_used_until_shortly_before_its_end() -> None:
    now = 0.0
    async with scripted_client(guarded(RIGHT), clock=lambda: now) as it:
        await it.head()
        now = 289.0
        await it.head()
        assert it.registry.lines.count("GET /token") == 1
        now = 291.0
        await it.head()
        assert it.registry.lines.count("GET /token") == 2


async def test_a_token_that_does_no_longer_is_replaced_in_mid_run() -> None:
    async with scripted_client(guarded('{"token": "right"}')) as it:
        await it.head()
        it.registry.routes[f"HEAD {MANIFEST}"] = [wants("Bearer newer")]
        it.registry.routes["GET /token"] = [says(200, '{"token": "newer"}')]
        assert (await it.head()).digest == DIGEST
        assert it.registry.lines.count("GET /token") == 2


async def test_the_scope_that_a_refusal_names_is_asked_for_each_part_by_itself() -> None:
    scope = ',scope="repository:a/b:pull repository:base/c:pull,push"'
    async with scripted_client(guarded('{"token": "wrong"}', **{f"HEAD {MANIFEST}": [wants("Bearer right", scope=scope)]})) as it:
        it.registry.routes["GET /token"] = [says(200, '{"token": "wrong"}'), says(200, RIGHT)]
        assert (await it.head()).digest == DIGEST
        assert query(it)["scope"] == ["repository:a/b:pull", "repository:base/c:pull,push"]


async def test_a_registry_that_goes_on_refusing_is_believed_the_second_time() -> None:
    async with scripted_client(guarded('{"token": "wrong"}')) as it:
        with pytest.raises(DeniedError, match=r"denies anonymous access to a/b: .*\(run docker login 127"):
            await it.head()
        assert it.registry.lines.count(f"HEAD {MANIFEST}") <= 2


async def test_ever_new_tokens_that_do_not_help_are_no_reason_to_go_on() -> None:
    async with scripted_client(guarded("")) as it:
        it.registry.routes["GET /token"] = [says(200, f'{{"token": "wrong-{number}"}}') for number in range(9)]
        with pytest.raises(DeniedError):
            await it.head()
        assert it.registry.lines.count(f"HEAD {MANIFEST}") == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_service_that_refuses_is_a_denial_each_tag_with_its_own_name(status: int) -> None:
    async with scripted_client(guarded("", **{"GET /token": [says(status)]})) as it:
        two = Reference(it.registry.address, "a/b", "2")
        errors = await asyncio.gather(it.head(), it.client.head(two), return_exceptions=True)
        assert [type(error) for error in errors] == [DeniedError] * 2
        assert [str(error).split(": ")[0][-2:] for error in errors] == [":1", ":2"]


async def test_credentials_are_shown_to_the_token_service_and_only_there() -> None:
    async with scripted_client(guarded(RIGHT), credentials=ME) as it:
        await it.head()
        shown = [(asked.path, asked.headers.get("authorization")) for asked in it.registry.asked]
        assert shown == [("/v2/", None), ("/token", ME.basic), (MANIFEST, "Bearer right")]


async def test_an_identity_token_is_exchanged_by_post() -> None:
    async with scripted_client(guarded(RIGHT), credentials=Credentials(identity_token="refresh-me")) as it:
        assert (await it.head()).digest == DIGEST
        fields = query(it)
        assert (fields["grant_type"], fields["refresh_token"]) == (["refresh_token"], ["refresh-me"])
        assert (fields["scope"], fields["service"]) == (["repository:a/b:pull"], [SERVICE])
        assert all("refresh-me" not in asked.query for asked in it.registry.asked)


async def test_an_identity_token_is_not_carried_to_where_the_token_service_redirects() -> None:
    async with ScriptedServer({"POST /token": [says(200, RIGHT)]}) as elsewhere:
        routes = guarded("", **{"POST /token": [says(307, Location=f"http://{elsewhere.address}/token")]})
        async with scripted_client(routes, credentials=Credentials(identity_token="refresh-me")) as it:
            with pytest.raises(UnavailableError, match="answered 307 without a token"):
                await it.head()
        assert elsewhere.asked == []


async def test_refused_credentials_are_denied_without_being_printed() -> None:
    for routes in (guarded('{"token": "wrong"}'), guarded("", **{"GET /token": [says(401)]})):
        async with scripted_client(routes, credentials=ME) as it:
            with pytest.raises(DeniedError, match=r"configured") as failure:
                await it.head()
            assert ME.password not in str(failure.value)
            assert ME.basic not in str(failure.value)


async def test_basic_credentials_go_with_every_request_from_the_first_on() -> None:
    basic = says(401, WWW_Authenticate='Basic realm="r"')

    async def reply(request: web.BaseRequest) -> web.StreamResponse:
        return await (says(200, BODY, **HERE) if request.headers.get("Authorization") == ME.basic else basic)(request)

    async with scripted_client({"GET /v2/": [basic], f"HEAD {MANIFEST}": [reply]}, credentials=ME) as it:
        assert (await it.head()).digest == DIGEST
        assert it.registry.lines == ["GET /v2/", f"HEAD {MANIFEST}"]


@pytest.mark.parametrize("credentials", [None, ME, Credentials(identity_token="t")])
async def test_wrong_or_no_basic_credentials_are_tried_once(credentials: Credentials | None) -> None:
    basic = says(401, WWW_Authenticate='Basic realm="r"')
    async with scripted_client({"GET /v2/": [basic], f"HEAD {MANIFEST}": [basic]}, credentials=credentials) as it:
        with pytest.raises(DeniedError):
            await it.head()
        assert it.registry.lines[:2] == ["GET /v2/", f"HEAD {MANIFEST}"]
        assert it.registry.lines[2:] == (["GET /v2/"] if credentials is ME else [])


async def test_a_password_that_is_refused_for_good_is_shown_no_more() -> None:
    """Sending it again for each of thousands of images could lock the account."""
    basic = says(401, WWW_Authenticate='Basic realm="r"')
    async with scripted_client({"GET /v2/": [basic], f"HEAD {MANIFEST}": [basic]}, credentials=ME) as it:
        for _ in range(5):
            with pytest.raises(DeniedError, match=r"refuses the configured credentials \(renew them with docker login 127"):
                await it.head()
        assert it.registry.lines == ["GET /v2/", f"HEAD {MANIFEST}", "GET /v2/"]
        assert it.client.warnings() == [
            f"{it.registry.address} refuses the configured credentials (401): they are wrong, expired or revoked"
        ]


async def test_a_password_that_does_not_do_for_one_repository_is_shown_for_others() -> None:
    basic, other = says(401, WWW_Authenticate='Basic realm="r"'), "/v2/c/d/manifests/2"
    routes = {"GET /v2/": [basic, says()], f"HEAD {MANIFEST}": [basic], f"HEAD {other}": [says(200, BODY, **HERE)]}
    async with scripted_client(routes, credentials=ME) as it:
        for _ in range(2):
            with pytest.raises(DeniedError, match="denies access to a/b for the configured user"):
                await it.head()
        assert (await it.client.head(Reference(it.registry.address, "c/d", "2"))).digest == DIGEST
        assert it.registry.lines.count("GET /v2/") == 2
        assert it.client.warnings() == []


@pytest.mark.parametrize(
    ("credentials", "status", "asked"),
    [
        (ME, 401, 1),
        (ME, 403, 3),
        (Credentials(identity_token="expired"), 400, 1),
        (Credentials(identity_token="expired"), 401, 1),
    ],
)
async def test_credentials_that_a_token_service_refuses_are_a_warning_and_not_shown_again(
    credentials: Credentials, status: int, asked: int
) -> None:
    """A 403 may concern one repository only (GitLab, ghcr); the other statuses concern the credentials."""
    routes = guarded("", **{"GET /token": [says(403 if status == 403 else 401)], "POST /token": [says(status)]})
    async with scripted_client(routes, credentials=credentials) as it:
        for _ in range(3):
            with pytest.raises(DeniedError):
                await it.head()
        shown = [one for one in it.registry.asked if "authorization" in one.headers or b"refresh_token" in one.body]
        assert len(shown) == asked
        (warning,) = it.client.warnings()
        assert f"refuses the configured credentials ({status})" in warning


@pytest.mark.parametrize("credentials", [ME, Credentials(identity_token="expired")])
async def test_where_credentials_are_refused_what_is_everybodys_is_had_without_and_nothing_else_is_said_of(
    credentials: Credentials,
) -> None:
    async def issue(request: web.BaseRequest) -> web.StreamResponse:
        known = request.method == "POST" or "Authorization" in request.headers
        return await (says(401) if known else says(200, RIGHT))(request)

    absent = says(404, Docker_Distribution_Api_Version="registry/2.0")
    routes: dict[str, list[Reply]] = {"GET /token": [issue], "POST /token": [issue], "HEAD /v2/c/d/manifests/2": [absent]}
    async with scripted_client(guarded("", **routes), credentials=credentials) as it:
        for _ in range(3):
            assert (await it.head()).digest == DIGEST
        with pytest.raises(UnavailableError, match="has no c/d:2 for anonymous clients, and it refuses the configured") as error:
            await it.client.head(Reference(it.registry.address, "c/d", "2"))
        assert "docker login" in (error.value.hint or "")
        (warning,) = it.client.warnings()
        assert "refuses the configured credentials (401)" in warning


async def test_a_token_service_that_does_not_understand_says_nothing_of_a_password() -> None:
    async with scripted_client(guarded("", **{"GET /token": [says(400)]}), credentials=ME) as it:
        with pytest.raises(UnavailableError, match="answered 400 without a token"):
            await it.head()
        assert it.client.warnings() == []


async def test_nothing_is_warned_of_where_no_credentials_are_configured() -> None:
    async with scripted_client(guarded("", **{"GET /token": [says(401)]})) as it:
        with pytest.raises(DeniedError):
            await it.head()
        assert it.client.warnings() == []


async def test_old_tokens_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.registry.authority._MAX_TOKENS", 2)
    repositories = ("a/b", "c/d", "e/f")
    heads = {f"HEAD /v2/{name}/manifests/1": [wants("Bearer right")] for name in repositories}
    async with scripted_client(guarded(RIGHT, **heads)) as it:
        for name in (*repositories, "e/f", "a/b"):
            await it.client.head(Reference(it.registry.address, name, "1"))
        assert [query(it, at)["scope"][0].split(":")[1] for at in range(4)] == [*repositories, "a/b"]


async def test_a_registry_that_wants_a_token_only_for_some_repositories_gets_one_there() -> None:
    async with scripted_client(guarded(RIGHT, **{"GET /v2/": [says()]})) as it:
        assert (await it.head()).digest == DIGEST


async def test_a_refusal_without_a_way_to_authenticate_is_a_denial() -> None:
    async with scripted_client({f"HEAD {MANIFEST}": [says(401, WWW_Authenticate="Negotiate")]}) as it:
        with pytest.raises(DeniedError, match="offers no supported authentication"):
            await it.head()


async def test_a_busy_token_service_is_asked_again() -> None:
    async with scripted_client(guarded("", **{"GET /token": [says(429, Retry_After="9"), says(502), says(200, RIGHT)]})) as it:
        assert (await it.head()).digest == DIGEST
        assert it.pauses[0] == 9


@pytest.mark.parametrize(
    "answer",
    ["", "[]", "{}", '{"token": 7}', '{"token": "a\\nb"}', '{"token": "é"}', '{"token": "x", "expires_in": "soon"}', "[" * 5000],
)
async def test_a_token_service_that_talks_nonsense_is_could_not_tell(answer: str) -> None:
    async with scripted_client(guarded(answer)) as it:
        with pytest.raises(UnavailableError, match="answered 200 without a token"):
            await it.head()


@pytest.mark.parametrize("realm", ["ftp://127.0.0.1/token", "/token", "https://[::1/", "file:///etc/passwd"])
async def test_passwords_go_to_no_strange_token_service(realm: str) -> None:
    bearer = says(401, WWW_Authenticate=f'Bearer realm="{realm}"')
    async with scripted_client({"GET /v2/": [bearer]}, credentials=ME) as it:
        with pytest.raises(UnavailableError, match="names a token service that is not used"):
            await it.head()


def test_docker_hub_is_asked_where_its_api_is_and_only_listed_registries_in_plain_http() -> None:
    endpoints = Endpoints(frozenset({"127.0.0.1:5000"}), {})
    assert str(endpoints.origin(DOCKER_HUB).url).rstrip("/") == "https://registry-1.docker.io"
    assert endpoints.origin("127.0.0.1:5000").url.scheme == "http"
    others = ("127.0.0.1:5001", "127.0.0.1", "localhost:5000")
    assert {endpoints.origin(registry).url.scheme for registry in others} == {"https"}


async def test_a_plain_registry_that_is_not_listed_gets_no_plain_request() -> None:
    routes = {f"HEAD {MANIFEST}": [says(200, BODY, **HERE)]}
    async with scripted_client(routes) as it, RegistryClient(networks=LOOPBACK) as client:
        with pytest.raises(UnavailableError, match=r"does not accept a TLS connection \(.*--insecure-registry\)"):
            await client.head(it.reference)
        assert it.registry.asked == []
