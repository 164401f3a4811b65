"""Mirrors: they are asked before the registry, and are never trusted to say that an image does not exist."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from publisher.contract.reference import Reference
from publisher.errors import BlobError, NotFoundError, UnavailableError
from publisher.net.retry import RetryPolicy
from publisher.registry.client import RegistryClient
from publisher.registry.credentials import Credentials
from publisher.registry.endpoints import parse_mirror
from tests.support.registries.scripted_http import ScriptedServer, breaks_off, says
from tests.support.registries.scripted_registry import BLOB, BLOBS, BODY, BY_DIGEST, DIGEST, HERE, LAYER, MANIFEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from publisher import oci
    from tests.support.registries.scripted_http import Reply

OTHER = "sha256:" + "0b" * 32
UNKNOWN = says(404, '{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', Docker_Distribution_Api_Version="registry/2.0")
SECRET = Credentials("me", "s3cret")


class Mirrored:
    """A registry with one mirror, and a client that knows both."""

    def __init__(self, origin: ScriptedServer, mirror: ScriptedServer, client: RegistryClient, pauses: list[float]) -> None:
        self.origin = origin
        self.mirror = mirror
        self.client = client
        self.pauses = pauses
        self.reference = Reference(origin.address, "a/b", "1")

    async def head(self) -> oci.Descriptor:
        return await self.client.head(self.reference)

    async def blob(self) -> bytes:
        received = bytearray()

        async def sink(chunk: bytes) -> None:
            received.extend(chunk)

        await self.client.blob(self.reference, LAYER, sink)
        return bytes(received)

    @property
    def asked(self) -> tuple[int, int]:
        """Return the requests that origin and mirror received, except those for ``/v2/``."""
        return sum(line != "GET /v2/" for line in self.origin.lines), sum(line != "GET /v2/" for line in self.mirror.lines)


@contextlib.asynccontextmanager
async def mirrored(
    origin: dict[str, list[Reply]],
    mirror: dict[str, list[Reply]],
    *,
    path: str = "",
    mirror_tags: bool = True,
    before: str = "",
    credentials: Credentials | None = None,
) -> AsyncIterator[Mirrored]:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async with (
        ScriptedServer({"GET /v2/": [says()], **origin}) as main,
        ScriptedServer({"GET /v2/": [says()], **mirror}) as second,
    ):
        urls = [before, f"http://{second.address}{path}"] if before else [f"http://{second.address}{path}"]
        async with RegistryClient(
            insecure=frozenset({main.address}),
            mirrors={main.address: urls},
            mirror_tags=mirror_tags,
            credentials=lambda name: credentials if name == main.address else None,
            retry=RetryPolicy(sleep=sleep),
            clock=lambda: 0.0,
        ) as client:
            yield Mirrored(main, second, client, pauses)


HEAD = f"HEAD {MANIFEST}"
GET = f"GET {BY_DIGEST}"


async def test_a_mirror_that_has_it_spares_the_registry() -> None:
    have = {HEAD: [says(200, BODY, **HERE)], GET: [says(200, BODY)], f"GET {BLOBS}": [says(200, BLOB)]}
    async with mirrored({}, have) as it:
        assert (await it.head()).digest == DIGEST
        assert (await it.client.manifest(it.reference, DIGEST))[1] == BODY
        assert await it.blob() == BLOB
        assert it.asked == (0, 3)
        assert it.client.warnings() == []


@pytest.mark.parametrize(
    "reply", [UNKNOWN, says(404, "<html>"), says(403), says(500), says(429, Retry_After="9"), says(401), says(302)]
)
async def test_whatever_a_mirror_has_no_good_answer_to_is_asked_of_the_registry_at_once(reply: Reply) -> None:
    async with mirrored({HEAD: [says(200, BODY, **HERE)]}, {HEAD: [reply], f"GET {MANIFEST}": [reply]}) as it:
        assert (await it.head()).digest == DIGEST
        assert it.pauses == []


async def test_a_mirror_that_is_down_is_passed_over_told_of_once_and_left_alone_in_the_end() -> None:
    async with ScriptedServer({}) as gone:
        address = gone.address
    async with mirrored({}, {HEAD: [says(200, BODY, **HERE)]}, before=f"http://{address}") as it:
        for _ in range(7):
            assert (await it.head()).digest == DIGEST
        assert it.asked == (0, 7)
        (warning,) = it.client.warnings()
        assert warning.startswith(
            f"the mirror {address} failed, so {it.origin.address} itself was asked: {address} cannot be reached"
        )


async def test_only_the_registry_can_say_that_there_is_no_such_thing() -> None:
    async with mirrored({HEAD: [UNKNOWN]}, {HEAD: [UNKNOWN]}) as it:
        with pytest.raises(NotFoundError, match=f"{it.origin.address} has no a/b:1"):
            await it.head()
    async with mirrored({HEAD: [says(503)]}, {HEAD: [UNKNOWN]}) as it:
        with pytest.raises(UnavailableError, match="answered 503, after 4 attempts"):
            await it.head()


async def test_tags_are_asked_of_the_registry_where_the_operator_wants_that_and_digests_still_of_the_mirror() -> None:
    stale = {
        HEAD: [says(200, BODY, Docker_Content_Digest=OTHER)],
        GET: [says(200, BODY)],
        f"HEAD {BY_DIGEST}": [says(200, **HERE)],
    }
    async with mirrored({HEAD: [says(200, BODY, **HERE)]}, stale, mirror_tags=False) as it:
        assert (await it.head()).digest == DIGEST
        assert it.asked == (1, 0)
        it.reference = Reference(it.origin.address, "a/b", "1", DIGEST)
        await it.head()
        await it.client.manifest(it.reference, DIGEST)
        assert it.asked == (1, 2)
    async with mirrored({HEAD: [says(200, BODY, **HERE)]}, stale) as it:
        assert (await it.head()).digest == OTHER


async def test_a_list_of_tags_is_never_a_mirrors() -> None:
    async with mirrored(
        {"GET /v2/a/b/tags/list": [says(200, '{"tags": ["1", "2"]}')]}, {"GET /v2/a/b/tags/list": [says(200, '{"tags": []}')]}
    ) as it:
        assert await it.client.tags(it.reference) == ["1", "2"]
        assert it.mirror.asked == []


async def test_the_registrys_credentials_are_never_shown_to_a_mirror() -> None:
    wants = says(401, WWW_Authenticate='Basic realm="r"')
    async with mirrored(
        {"GET /v2/": [wants], HEAD: [says(200, BODY, **HERE)]}, {"GET /v2/": [wants], HEAD: [wants]}, credentials=SECRET
    ) as it:
        assert (await it.head()).digest == DIGEST
        assert [asked.headers.get("authorization") for asked in it.mirror.asked] == [None, None]
        assert it.origin.asked[-1].headers["authorization"] == SECRET.basic


async def test_a_mirrors_own_token_is_for_its_own_name_of_the_repository() -> None:
    async with mirrored({HEAD: [UNKNOWN]}, {"GET /token": [says(200, '{"token": "t"}')]}, path="/proxy/hub") as it:
        realm = f'Bearer realm="http://{it.mirror.address}/token"'
        it.mirror.routes["GET /v2/"] = [says(401, WWW_Authenticate=realm)]
        it.mirror.routes["HEAD /v2/proxy/hub/a/b/manifests/1"] = [says(200, BODY, **HERE)]
        assert (await it.head()).digest == DIGEST
        assert it.mirror.asked[1].query == "scope=repository:proxy/hub/a/b:pull"
        assert it.mirror.asked[-1].headers["authorization"] == "Bearer t"
        assert it.origin.asked == []


async def test_a_wrong_manifest_of_a_mirror_is_replaced_by_the_registrys() -> None:
    async with mirrored({GET: [says(200, BODY)]}, {GET: [says(200, b"wrong")]}) as it:
        assert (await it.client.manifest(it.reference, DIGEST))[1] == BODY
        assert it.client.warnings() != []


async def test_a_manifest_that_is_wrong_everywhere_is_asked_of_the_registry_a_second_time_and_not_of_the_mirror() -> None:
    async with mirrored({GET: [says(200, b"wrong"), says(200, BODY)]}, {GET: [says(200, b"wrong")]}) as it:
        assert (await it.client.manifest(it.reference, DIGEST))[1] == BODY
        assert it.asked == (2, 1)


@pytest.mark.parametrize("reply", [UNKNOWN, says(403)])
async def test_a_mirror_that_does_not_have_everything_is_nothing_to_warn_of(reply: Reply) -> None:
    async with mirrored({HEAD: [says(200, BODY, **HERE)]}, {HEAD: [reply]}) as it:
        await it.head()
        assert it.client.warnings() == []


async def test_a_digest_that_a_mirror_answers_for_another_is_not_believed() -> None:
    head = f"HEAD {BY_DIGEST}"
    async with mirrored({head: [says(200, BODY, **HERE)]}, {head: [says(200, BODY, Docker_Content_Digest=OTHER)]}) as it:
        it.reference = Reference(it.origin.address, "a/b", "1", DIGEST)
        assert (await it.head()).digest == DIGEST


async def test_a_blob_that_breaks_off_at_a_mirror_goes_on_at_the_registry() -> None:
    rest = says(206, BLOB[300:], Content_Range=f"bytes 300-{len(BLOB) - 1}/{len(BLOB)}")
    async with mirrored({f"GET {BLOBS}": [rest]}, {f"GET {BLOBS}": [breaks_off(BLOB, 300)]}) as it:
        assert await it.blob() == BLOB
        assert it.origin.asked[-1].headers["range"] == "bytes=300-"


async def test_a_blob_that_a_mirror_gives_too_much_of_comes_from_the_registry() -> None:
    async with mirrored({f"GET {BLOBS}": [says(200, BLOB)]}, {f"GET {BLOBS}": [says(200, BLOB + b"!")]}) as it:
        assert await it.blob() == BLOB
    async with mirrored({f"GET {BLOBS}": [says(200, BLOB + b"!")]}, {}) as it:
        with pytest.raises(BlobError):
            await it.blob()


async def test_a_blob_that_is_asked_for_again_does_not_come_from_the_mirror_again() -> None:
    """Only the receiver can check the digest."""
    wrong = bytes(len(BLOB))
    async with mirrored({f"GET {BLOBS}": [says(200, BLOB)]}, {f"GET {BLOBS}": [says(200, wrong)]}) as it:
        assert await it.blob() == wrong
        assert await it.blob() == BLOB


async def test_a_failure_of_the_receiver_is_no_reason_to_ask_somebody_else() -> None:
    async def full(_: bytes) -> None:
        raise BlobError("cannot be written")

    have = {f"GET {BLOBS}": [says(200, BLOB)]}
    async with mirrored(have, have) as it:
        with pytest.raises(BlobError, match="cannot be written"):
            await it.client.blob(it.reference, LAYER, full)
        assert it.asked == (0, 1)


@pytest.mark.parametrize(
    ("credentials", "mirrors", "mirror_tags", "expected"),
    [
        (None, [], True, False),
        (SECRET, [], True, True),
        (None, ["https://mirror.example"], True, True),
        (None, ["https://mirror.example"], False, False),
    ],
)
async def test_an_answer_may_be_privileged_where_there_are_credentials_or_mirrors(
    credentials: Credentials | None, mirrors: list[str], mirror_tags: bool, expected: bool
) -> None:
    client = RegistryClient(mirrors={"registry.example": mirrors}, mirror_tags=mirror_tags, credentials=lambda _: credentials)
    async with client:
        assert await client.sees_private_images(Reference("registry.example", "a/b", "1")) is expected


@pytest.mark.parametrize(
    ("url", "name", "prefix"),
    [
        ("https://mirror.gcr.io", "mirror.gcr.io", ""),
        ("http://127.0.0.1:5000/", "127.0.0.1:5000", ""),
        ("https://harbor.example:443/docker-hub/", "harbor.example", "docker-hub/"),
        ("http://[::1]:5000/a/b", "[::1]:5000", "a/b/"),
    ],
)
def test_a_mirror_is_named_by_its_url(url: str, name: str, prefix: str) -> None:
    found = parse_mirror(url)
    assert (found.name, found.prefix) == (name, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mirror.gcr.io",
        "ftp://a",
        "https://",
        "https://me:pass@a.example",
        "https://a/b?c",
        "https://a/../b",
        "https://a//b",
        "http://a:x",
    ],
)
def test_what_is_no_mirror_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a mirror; write a URL such as"):
        parse_mirror(url)
