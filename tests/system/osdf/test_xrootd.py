"""What the real XRootD does that the origin builds on; with a newer version these say first what has changed."""

from __future__ import annotations

import http.client
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.support.osdf.xrootd import NAMESPACE, Servers

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system
UPLOADER = "storage.read:/ storage.modify:/.incoming storage.create:/sif"


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running


def send(
    servers: Servers, method: str, name: str, body: bytes | None = None, *, url: str = "", **headers: str
) -> tuple[int, bytes]:
    """Status and body of an answer; ``scope`` among the headers is a token's, none for no token."""
    scope = headers.pop("scope", UPLOADER)
    shown = {"Authorization": f"Bearer {servers.issuer.token(scope)}"} if scope else {}
    host = (url or servers.origin).removeprefix("https://")
    connection = http.client.HTTPSConnection(host, context=ssl.create_default_context(cafile=str(servers.authority)), timeout=10)
    try:
        connection.request(method, f"{NAMESPACE}/{name}", body, {**shown, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def move(servers: Servers, name: str, to: str, scope: str = UPLOADER) -> int:
    return send(servers, "MOVE", name, Destination=f"{servers.origin}{NAMESPACE}/{to}", scope=scope)[0]


def test_a_right_to_create_takes_an_upload_once_and_a_move_once(servers: Servers) -> None:
    assert send(servers, "PUT", ".incoming/one", b"1")[0] == 200
    assert send(servers, "PUT", ".incoming/two", b"2")[0] == 200
    assert move(servers, ".incoming/one", "sif/aa/x") == 201
    assert move(servers, ".incoming/two", "sif/aa/x") == 403
    assert send(servers, "PUT", "sif/aa/x", b"3")[0] == 403
    assert send(servers, "DELETE", "sif/aa/x")[0] == 403
    assert send(servers, "GET", "sif/aa/x") == (200, b"1")


def test_without_a_token_everybody_may_read_and_nobody_may_write(servers: Servers) -> None:
    send(servers, "PUT", "sif/aa/read", b"1")
    assert send(servers, "GET", "sif/aa/read", scope="") == (200, b"1")
    assert send(servers, "PUT", ".incoming/written", b"1", scope="")[0] == 403


def test_a_cache_goes_on_serving_what_was_overwritten(servers: Servers) -> None:
    """Why objects have the names of their content."""
    servers.start("cache")
    send(servers, "PUT", "index", b"old", scope="storage.modify:/")
    assert send(servers, "GET", "index", url=servers.cache, scope="") == (200, b"old")
    (servers.data / NAMESPACE[1:] / "index").write_bytes(b"newer")  # a PUT gets a 423 as long as the cache has the file open
    assert send(servers, "GET", "index", scope="") == (200, b"newer")
    assert send(servers, "GET", "index", url=servers.cache, scope="") == (200, b"old")
