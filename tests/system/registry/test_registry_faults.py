"""Faults of registries and of proxies before them, on a real docker-registry behind a faulty proxy.

At the level of the client: the result of each fault, and that no fault is mistaken for "the image does not exist".
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from publisher.contract.reference import Reference
from publisher.errors import BlobError, DeniedError, NotFoundError, UnavailableError
from publisher.net.retry import RetryPolicy
from publisher.oci import Platform
from publisher.publish.fetch import fetch_image, fetch_layers
from publisher.registry.blobs.store import BlobStore
from publisher.registry.client import RegistryClient
from publisher.registry.transport import RegistryTimeouts
from tests.support.images.layers import file, tar
from tests.support.registries.proxy import Proxy, misbehaving
from tests.support.registries.registry import RegistryServer, push_image
from tests.support.registries.scripted_http import hangs, says

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from publisher import oci
    from tests.support.registries.scripted_http import Reply

pytestmark = pytest.mark.system

NAME = "faults/image"
LAYER = tar([file("data", bytes(range(256)) * 1000)])
HEAD, GET, BLOB, LIST = "HEAD /v2/*/manifests/1", "GET /v2/*/manifests/*", "GET /v2/*/blobs/*", f"GET /v2/{NAME}/tags/list"
TAGS = [str(number) for number in range(1, 10)]
UNKNOWN = says(404, '{"errors": [{"code": "NAME_UNKNOWN"}]}', Docker_Distribution_Api_Version="registry/2.0")


@pytest.fixture(scope="module")
def pushed(registry: RegistryServer) -> RegistryServer:
    """Push an image with nine tags; return the registry."""
    push_image(registry.address, NAME, "1", [LAYER], compression="none")
    for tag in TAGS[1:]:
        push_image(registry.address, NAME, tag, [LAYER], compression="none")
    return registry


@pytest.fixture
def proxy(pushed: RegistryServer) -> Iterator[Proxy]:
    with misbehaving(pushed) as proxy:
        yield proxy


class ProxiedClient:
    """A client of the proxy whose waits take no time; ``pauses`` are the waits in seconds."""

    def __init__(self, proxy: Proxy, timeouts: RegistryTimeouts | None = None) -> None:
        self.pauses: list[float] = []
        self.reference = Reference(proxy.address, NAME, "1")
        self.client = RegistryClient(
            insecure=frozenset({proxy.address}),
            retry=RetryPolicy(sleep=self._sleep),
            timeouts=timeouts or RegistryTimeouts(),
            clock=lambda: sum(self.pauses),
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def head(self) -> str:
        async with self.client as client:
            return (await client.head(self.reference)).digest

    async def tags(self) -> list[str]:
        async with self.client as client:
            return sorted(await client.tags(self.reference))

    async def image(self, store: Path) -> tuple[oci.Image, bytes]:
        """Fetch an image and the bytes of its layer."""
        async with self.client as client:
            blobs, digest = BlobStore(store), (await client.head(self.reference)).digest
            image = await fetch_image(client, blobs, self.reference, digest, Platform("linux", "amd64"))
            (layer,), _ = await fetch_layers(client, blobs, image, self.reference, lambda _done, _total: None)
            return image, layer.read_bytes()


def count(proxy: Proxy, method: str, ending: str) -> int:
    return sum(asked.method == method and asked.path.endswith(ending) for asked in proxy.asked)


async def test_without_a_fault_all_comes_through(proxy: Proxy, tmp_path: Path) -> None:
    image, layer = await ProxiedClient(proxy).image(tmp_path)
    assert layer == LAYER
    assert await ProxiedClient(proxy).head() == image.manifest.digest
    assert await ProxiedClient(proxy).tags() == TAGS


# --- authentication


async def test_401_again_and_again_is_a_denial_after_the_second(proxy: Proxy) -> None:
    realm = f'Bearer realm="http://{proxy.address}/token"'
    proxy.token = "never-right"
    proxy.always(HEAD, says(401, WWW_Authenticate=realm))
    with pytest.raises(DeniedError, match="denies anonymous access"):
        await ProxiedClient(proxy).head()
    assert count(proxy, "HEAD", "/1") <= 2
    assert count(proxy, "GET", "/token") <= 2


async def test_a_token_that_expires_in_mid_run_is_replaced_for_all_that_are_under_way(proxy: Proxy) -> None:
    proxied = ProxiedClient(proxy)
    proxy.token = "first"
    references = [Reference(proxy.address, NAME, tag) for tag in TAGS]
    async with proxied.client as client:
        before = [(await client.head(reference)).digest for reference in references]
        proxy.token = "second"
        after = await asyncio.gather(*(client.head(reference) for reference in references))
    assert [found.digest for found in after] == before
    assert count(proxy, "GET", "/token") <= 1 + len(TAGS)
    heads = Counter(asked.path for asked in proxy.asked if asked.method == "HEAD")
    assert max(heads.values()) <= 3


# --- later, or not at all


@pytest.mark.parametrize("headers", [{"Retry_After": "7"}, {}])
async def test_429_is_waited_for_as_it_wants_and_given_up_in_the_end(proxy: Proxy, headers: dict[str, str]) -> None:
    proxy.faults[HEAD] = [says(429, **headers)] * 2
    proxied = ProxiedClient(proxy)
    assert await proxied.head()
    assert sum(proxied.pauses) >= (14 if headers else 2)
    proxy.always(HEAD, says(429, **headers))
    with pytest.raises(UnavailableError, match=r"answered 429.*after 4 attempts"):
        await ProxiedClient(proxy).head()


async def test_500_is_tried_again_and_given_up_in_the_end(proxy: Proxy, tmp_path: Path) -> None:
    for route in (HEAD, GET, BLOB, LIST):
        proxy.faults[route] = [says(500)] * 2
    proxy.faults["GET /v2/"] = [says(500)]
    assert (await ProxiedClient(proxy).image(tmp_path))[1] == LAYER
    assert await ProxiedClient(proxy).tags() == TAGS
    proxy.always(HEAD, says(500))
    with pytest.raises(UnavailableError, match="answered 500, after 4 attempts"):
        await ProxiedClient(proxy).head()


@pytest.mark.parametrize("route", [HEAD, GET, BLOB, LIST, "GET /v2/"])
async def test_a_hang_never_outlives_its_deadline(proxy: Proxy, tmp_path: Path, route: str) -> None:
    proxy.always(route, hangs)
    short = RegistryTimeouts(small=0.2, idle=0.2, listing=0.5, slowest=1 << 30)
    async with asyncio.timeout(60):
        with pytest.raises(UnavailableError, match=r"did not answer in time|sent only 0 B of|did not list the tags"):
            await (ProxiedClient(proxy, short).tags() if route == LIST else ProxiedClient(proxy, short).image(tmp_path))


async def test_what_hangs_once_is_asked_again(proxy: Proxy, tmp_path: Path) -> None:
    for route in (HEAD, GET, BLOB, LIST):
        proxy.faults[route] = [hangs]
    short = RegistryTimeouts(idle=0.2)
    assert (await ProxiedClient(proxy, short).image(tmp_path))[1] == LAYER
    assert await ProxiedClient(proxy, short).tags() == TAGS


# --- wrong answers


async def test_half_a_body_is_asked_for_again_and_half_a_layer_for_its_other_half(proxy: Proxy, tmp_path: Path) -> None:
    for route in (GET, LIST):
        proxy.faults[route] = [proxy.cut()]
    proxy.faults[BLOB] = [proxy.forward, proxy.cut()]
    assert (await ProxiedClient(proxy).image(tmp_path))[1] == LAYER
    ranges = [asked.headers["range"] for asked in proxy.asked if "range" in asked.headers]
    assert ranges == [f"bytes={len(LAYER) // 2}-"]
    assert await ProxiedClient(proxy).tags() == TAGS


@pytest.mark.parametrize("announced", [1.0, 0.5])
@pytest.mark.parametrize("route", [GET, LIST])
async def test_half_a_body_for_ever_is_no_answer_whatever_length_it_claims(
    proxy: Proxy, tmp_path: Path, route: str, announced: float
) -> None:
    proxy.always(route, proxy.cut(0.5, announced))
    with pytest.raises((UnavailableError, BlobError), match=r"broke off|not answer with a list of tags|does not match sha256"):
        await (ProxiedClient(proxy).tags() if route == LIST else ProxiedClient(proxy).image(tmp_path))


async def test_a_length_that_is_more_than_comes_is_no_answer(proxy: Proxy, tmp_path: Path) -> None:
    for route in (GET, BLOB, LIST):
        proxy.faults[route] = [proxy.cut(1.0, 1.5)]
    assert (await ProxiedClient(proxy).image(tmp_path))[1] == LAYER
    assert await ProxiedClient(proxy).tags() == TAGS


async def test_a_layer_that_is_too_long_or_too_short_is_refused(proxy: Proxy, tmp_path: Path) -> None:
    proxy.always(f"GET /v2/{NAME}/blobs/*", proxy.changed(lambda body: body + b"!"))
    with pytest.raises(BlobError, match="more than the"):
        await ProxiedClient(proxy).image(tmp_path / "long")
    proxy.always(f"GET /v2/{NAME}/blobs/*", proxy.changed(lambda body: body[:-1]))
    with pytest.raises(UnavailableError, match=r"sent only \d+ of the \d+ bytes"):
        await ProxiedClient(proxy).image(tmp_path / "short")


async def test_a_wrong_digest_is_never_handed_out(proxy: Proxy, tmp_path: Path) -> None:
    flipped: Callable[[bytes], bytes] = lambda body: body[:-2] + bytes([body[-2] ^ 1]) + body[-1:]  # noqa: E731 - of one line
    proxy.always(GET, proxy.changed(flipped))
    with pytest.raises(BlobError, match="sent a manifest that does not match sha256:"):
        await ProxiedClient(proxy).image(tmp_path)
    proxy.faults = {BLOB: [proxy.forward, *[proxy.changed(flipped)] * 2]}
    with pytest.raises(BlobError, match="do not match its digest or size"):
        await ProxiedClient(proxy).image(tmp_path)
    proxy.faults = {HEAD: [proxy.changed(lambda body: body, Docker_Content_Digest="sha256:" + "0a" * 32)]}
    with pytest.raises(NotFoundError, match="has no faults/image@sha256:0a0a"):
        await ProxiedClient(proxy).image(tmp_path)


# --- lists of tags


@pytest.mark.parametrize(
    "link",
    [
        "/v2/{name}/tags/list?last={last}&n={n}",
        "/v2/{name}/tags/list?n={n}&next_page={last}",
        "http://{host}/v2/{name}/tags/list?last={last}&n={n}",
        "https://elsewhere.example/v2/{name}/tags/list?last={last}&n={n}",
    ],
)
async def test_all_pages_of_a_list_are_followed(proxy: Proxy, link: str) -> None:
    proxy.always(LIST, proxy.pages(2, link=link))
    assert await ProxiedClient(proxy).tags() == TAGS
    assert count(proxy, "GET", "/tags/list") == 5


@pytest.mark.parametrize(
    "cut", [says(500), says(404), UNKNOWN, says(403), says(200, "half a b"), says(200, '{"errors": []}'), hangs]
)
async def test_a_list_that_is_cut_in_the_middle_of_its_pages_is_could_not_tell(proxy: Proxy, cut: Reply) -> None:
    proxy.always(LIST, proxy.pages(2, then={2: cut}))
    with pytest.raises(UnavailableError):
        await ProxiedClient(proxy, RegistryTimeouts(small=0.2, listing=2)).tags()


async def test_a_list_that_never_ends_is_could_not_tell(proxy: Proxy) -> None:
    proxy.always(LIST, proxy.pages(2, link="/v2/{name}/tags/list?last=2&n={n}"))
    with pytest.raises(UnavailableError, match="lead back to an earlier page"):
        await ProxiedClient(proxy).tags()


async def test_a_repository_that_is_not_there_is_not_found_and_says_so_for_its_tags_too(proxy: Proxy) -> None:
    proxied = ProxiedClient(proxy)
    proxied.reference = Reference(proxy.address, "faults/absent", "1")
    with pytest.raises(NotFoundError, match="has no tags of faults/absent"):
        await proxied.tags()
