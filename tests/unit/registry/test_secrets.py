"""No secret in any output of the client: errors with their causes, log records, warnings and representations."""

from __future__ import annotations

import base64
import logging
import traceback
import uuid
from typing import TYPE_CHECKING

import pytest

from publisher.contract.reference import Reference
from publisher.errors import DeniedError, PublisherError, UsageError
from publisher.registry.client import RegistryClient
from publisher.registry.credentials import Credentials, docker_credentials
from publisher.registry.transport import RegistryTimeouts
from tests.support.registries.scripted_http import ScriptedServer, breaks_off, hangs, says
from tests.support.registries.scripted_registry import BLOB, BLOBS, BODY, BY_DIGEST, HERE, LAYER, MANIFEST, scripted_client

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from aiohttp import web

    from tests.support.registries.scripted_http import Reply
    from tests.support.registries.scripted_registry import ScriptedClient

PASSWORD, IDENTITY, TOKEN, SIGNATURE = "s3cret-password", "s3cret-identity", "s3cret-token", "s3cret-signature"
BASIC = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
SECRETS = ("s3cret", BASIC, base64.b64encode(PASSWORD.encode()).decode())
LIST = "/v2/a/b/tags/list"
ISSUED = says(200, f'{{"token": "{TOKEN}"}}')


async def echoes(request: web.BaseRequest) -> web.StreamResponse:
    """Reply with the request's secrets in every place of a response."""
    told = f"{request.headers.get('Authorization')} {(await request.read()).decode()} {SIGNATURE}"
    location = f"ftp://me:{PASSWORD}@somewhere/{told.replace(' ', '_')}"
    headers = {"Location": location, "WWW_Authenticate": f'Odd realm="{told}"', "Docker_Content_Digest": told, "Link": told}
    return await says(302, f'{{"errors": [{{"code": "{told}", "message": "{told}"}}]}}', **headers)(request)


async def echoes_401(request: web.BaseRequest) -> web.StreamResponse:
    told = f"{request.headers.get('Authorization')} {(await request.read()).decode()}"
    return await says(401, told, WWW_Authenticate=f'Bearer realm="ftp://me:{PASSWORD}@x/{SIGNATURE}",scope="{told}"')(request)


FAULTS: dict[str, Reply] = {
    "echo": echoes,
    "echo 401": echoes_401,
    "refused": says(401, f"{PASSWORD}", WWW_Authenticate=f'Basic realm="{SIGNATURE}"'),
    "forbidden": says(403, f'{{"errors": [{{"code": "DENIED", "message": "{PASSWORD}"}}]}}'),
    "absent": says(404, f'{{"errors": [{{"code": "MANIFEST_UNKNOWN", "message": "{TOKEN}"}}]}}'),
    "busy": says(503, SIGNATURE),
    "peace": says(429, SIGNATURE, Retry_After="3600"),
    "nonsense": says(200, f'{{"tags": ["{SIGNATURE}!"], "{TOKEN}": "{PASSWORD}"'),
    "elsewhere": says(307, Location=f"http://me:{PASSWORD}@127.0.0.1:1/blob?sig={SIGNATURE}"),
    "strange place": says(307, Location=f"gopher://me:{PASSWORD}@x/?sig={SIGNATURE}"),
    "round and round": says(307, Location=f"?sig={SIGNATURE}"),
    "broken off": breaks_off(SIGNATURE.encode(), 5),
    "hanging": hangs,
}


def everything(errors: Iterable[BaseException], it: ScriptedClient, log: str) -> str:
    """Return everything that could be printed about some errors and a client."""
    parts = [log, *it.client.warnings()]
    for error in errors:
        seen: BaseException | None = error
        while seen is not None:
            parts += [str(seen), repr(seen), repr(vars(seen)), *traceback.format_exception(seen)]
            seen = seen.__cause__
    authority = it.client._authority
    parts += [repr(authority._tokens), repr(authority._credentials), repr(it.client), repr(vars(it.client))]
    return "\n".join(parts)


async def discard(_: bytes) -> None:
    pass


async def ask_all(it: ScriptedClient) -> list[BaseException]:
    """Call every method of the client and return the errors."""
    errors: list[BaseException] = []
    for question in (
        it.client.head(it.reference),
        it.client.tags(it.reference),
        it.client.blob(it.reference, LAYER, discard),
        it.manifest(),
    ):
        try:
            await question
        except PublisherError as error:
            errors.append(error)
    return errors


@pytest.mark.parametrize(
    "credentials", [Credentials("me", PASSWORD), Credentials(identity_token=IDENTITY)], ids=["password", "identity"]
)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("where", ["registry", "token service", "ping"])
async def test_nothing_that_the_client_says_holds_a_secret(
    credentials: Credentials, fault: Reply, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    routes = {f"HEAD {MANIFEST}", f"GET {MANIFEST}", f"GET {BY_DIGEST}", f"GET {BLOBS}", f"GET {LIST}"}
    timeouts = RegistryTimeouts(small=0.05, idle=0.05, listing=0.3)
    async with scripted_client({}, credentials=credentials, timeouts=timeouts) as it:
        wants = says(401, WWW_Authenticate=f'Bearer realm="http://{it.registry.address}/token"')
        it.registry.routes = {"GET /v2/": [wants], "GET /token": [ISSUED], "POST /token": [ISSUED]}
        if where == "registry":
            it.registry.routes |= {route: [fault] for route in routes}
        elif where == "token service":
            it.registry.routes |= {"GET /token": [fault], "POST /token": [fault]}
        else:
            it.registry.routes["GET /v2/"] = [fault]
        errors = await ask_all(it)
        log = "\n".join(record.getMessage() for record in caplog.records if record.name != "aiohttp.access")  # the test's server
        said = everything(errors, it, log)
        assert errors
        assert it.registry.asked
    for secret in SECRETS:
        assert secret not in said


@pytest.mark.parametrize(
    "credentials", [None, Credentials("me", PASSWORD), Credentials(identity_token=IDENTITY)], ids=["none", "password", "identity"]
)
async def test_no_log_record_contains_a_credential_a_token_or_a_query(
    credentials: Credentials | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Token requests, pages of tags, a rate limit, a retried blob and a signed redirect are logged without their secrets."""
    caplog.set_level(logging.DEBUG)
    query = f"X-Amz-Signature={SIGNATURE}"
    async with (
        ScriptedServer(
            {"GET /signed": [breaks_off(BLOB, 500), says(206, BLOB[500:], Content_Range="bytes 500-1023/1024")]}
        ) as store,
        scripted_client({}, credentials=credentials, rate=1) as it,
    ):
        realm = f"http://{it.registry.address}/token?account={TOKEN}"
        it.registry.routes = {
            "GET /v2/": [says(401, WWW_Authenticate=f'Bearer realm="{realm}",service="the-service"')],
            "GET /token": [ISSUED],
            "POST /token": [ISSUED],
            f"HEAD {MANIFEST}": [says(429, Retry_After="2"), says(200, BODY, **HERE)],
            f"GET {LIST}": [
                says(200, '{"tags": ["1"]}', Link=f'<{LIST}?last={SIGNATURE}>; rel="next"'),
                says(200, '{"tags": []}'),
            ],
            f"GET {BLOBS}": [says(307, Location=f"http://{store.address}/signed?{query}")],
        }
        assert (await it.head()).digest
        assert await it.client.tags(it.reference) == ["1"]
        assert await it.blob() == BLOB
        assert {asked.query for asked in store.asked} == {query}
        address = it.registry.address
    records = [record for record in caplog.records if record.name.startswith("publisher.")]
    messages = [record.getMessage() for record in records]
    for expected in (
        f"HEAD {address}{MANIFEST}: status 200",
        f"{address}/token: status 200",
        f"requesting a token for a/b of {address}",
        "for the rate limit of",
        f"retrying blob {LAYER.digest} from {address} at byte 500",
    ):
        assert any(expected in message for message in messages), expected
    logged = "\n".join([*messages, *(repr(vars(record)) for record in records)])
    for secret in (*SECRETS, "?", "X-Amz", "the-service", "last="):
        assert secret not in logged


async def test_no_secret_is_in_a_command_line_or_in_what_a_helper_makes_the_client_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper records all command lines of the machine; when it runs a second time, the client has the first secret."""
    secret, program, seen = uuid.uuid4().hex, tmp_path / "docker-credential-spy", tmp_path / "seen"
    program.write_text(
        f"#!/bin/sh\nfor line in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$line; echo; done >>{seen} 2>/dev/null\n"
        f"echo {secret} >&2; read -r server\n"
        f'case $server in *broken*) echo {secret}; exit 1;; *) echo \'{{"Username": "me", "Secret": "{secret}"}}\';; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "config.json").write_text('{"credsStore": "spy"}')
    look_up = docker_credentials(tmp_path / "config.json")
    basic, shown = says(401, WWW_Authenticate='Basic realm="r"'), Credentials("me", secret).basic
    async with (
        ScriptedServer({"GET /v2/": [basic], f"HEAD {MANIFEST}": [says(200, BODY, **HERE)]}) as one,
        ScriptedServer({"GET /v2/": [basic], f"HEAD {MANIFEST}": [basic]}) as two,
        RegistryClient(insecure=frozenset({one.address, two.address}), credentials=look_up) as client,
    ):
        await client.head(Reference(one.address, "a/b", "1"))
        with pytest.raises(DeniedError) as denied:
            await client.head(Reference(two.address, "a/b", "1"))
        with pytest.raises(UsageError) as failed:
            await client.sees_private_images(Reference("broken.example", "a/b", "1"))
        assert {one.asked[-1].headers["authorization"], two.asked[-1].headers["authorization"]} == {shown}
        said = [*client.warnings(), *traceback.format_exception(denied.value), *traceback.format_exception(failed.value)]
    lines = seen.read_text(errors="replace")
    assert "docker-credential-spy get" in lines
    assert secret not in lines
    assert secret not in "".join(said)
    assert shown.removeprefix("Basic ") not in "".join(said)
