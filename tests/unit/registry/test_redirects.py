from __future__ import annotations

import pytest

from publisher.errors import DeniedError, NotFoundError, UnavailableError
from publisher.registry.credentials import Credentials
from tests.support.registries.scripted_http import ScriptedServer, says
from tests.support.registries.scripted_registry import BLOB, BLOBS, scripted_client

BASIC = {"GET /v2/": [says(401, WWW_Authenticate='Basic realm="r"')]}
SECRET = "signature=do-not-print-me%2Fat%20all"


async def test_a_blob_store_gets_the_url_as_it_was_signed_and_never_the_registry_s_credentials() -> None:
    async with ScriptedServer({"GET /blob": [says(200, BLOB)]}) as store:
        moved = says(307, Location=f"http://{store.address}/blob?{SECRET}")
        async with scripted_client({**BASIC, f"GET {BLOBS}": [moved]}, credentials=Credentials("me", "pass")) as it:
            assert await it.blob() == BLOB
            assert "authorization" in it.registry.asked[-1].headers
        assert [asked.query for asked in store.asked] == [SECRET]
        assert "authorization" not in store.asked[0].headers


async def test_credentials_go_along_on_the_same_host() -> None:
    routes = {**BASIC, f"GET {BLOBS}": [says(302, Location="/elsewhere")], "GET /elsewhere": [says(200, BLOB)]}
    async with scripted_client(routes, credentials=Credentials("me", "pass")) as it:
        assert await it.blob() == BLOB
        assert it.registry.asked[-1].headers["authorization"] == Credentials("me", "pass").basic


async def test_credentials_do_not_come_back_by_a_detour_over_another_host() -> None:
    async with scripted_client({**BASIC, "GET /back": [says(200, BLOB)]}, credentials=Credentials("me", "pass")) as it:
        back = says(302, Location=f"http://{it.registry.address}/back")
        async with ScriptedServer({"GET /detour": [back]}) as elsewhere:
            it.registry.routes[f"GET {BLOBS}"] = [says(302, Location=f"http://{elsewhere.address}/detour")]
            assert await it.blob() == BLOB
        assert "authorization" not in it.registry.asked[-1].headers


async def test_redirects_end_after_five() -> None:
    async with scripted_client({f"GET {BLOBS}": [says(302, Location=BLOBS)]}) as it:
        with pytest.raises(UnavailableError, match="redirects more than 5 times"):
            await it.blob()
        assert it.registry.lines.count(f"GET {BLOBS}") == 6


@pytest.mark.parametrize("location", ["", "file:///etc/passwd", "ftp://127.0.0.1/x", "https://[::1", f"gopher://x/?{SECRET}"])
async def test_a_redirect_to_a_strange_place_is_not_followed(location: str) -> None:
    async with scripted_client({f"GET {BLOBS}": [says(302, Location=location)]}) as it:
        with pytest.raises(UnavailableError, match="redirects to a URL that is not followed") as failure:
            await it.blob()
        assert "do-not-print" not in str(failure.value)


@pytest.mark.parametrize("status", [401, 403, 404, 416])
async def test_a_blob_store_that_refuses_is_approached_anew_and_says_nothing_about_the_image(status: int) -> None:
    async with ScriptedServer({"GET /blob": [says(status, "<Error/>")]}) as store:
        async with scripted_client({f"GET {BLOBS}": [says(307, Location=f"http://{store.address}/blob?{SECRET}")]}) as it:
            with pytest.raises(UnavailableError, match=f"redirects, answered {status}, after 4 attempts") as failure:
                await it.blob()
            assert it.registry.lines.count(f"GET {BLOBS}") == 4
        assert not isinstance(failure.value, (NotFoundError, DeniedError))
        assert "do-not-print" not in str(failure.value)


async def test_a_url_with_a_name_and_a_password_in_it_is_followed_without_them() -> None:
    async with ScriptedServer({"GET /blob": [says(200, BLOB)]}) as store:
        async with scripted_client({f"GET {BLOBS}": [says(307, Location=f"http://me:pass@{store.address}/blob")]}) as it:
            assert await it.blob() == BLOB
        assert "authorization" not in store.asked[0].headers
