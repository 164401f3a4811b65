"""Lists of tags: complete or an error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from yarl import URL

from publisher.contract.reference import Reference
from publisher.errors import DeniedError, NotFoundError, UnavailableError
from publisher.registry import tag_pages
from publisher.registry.transport import RegistryTimeouts
from tests.support.registries.scripted_http import breaks_off, hangs, says
from tests.support.registries.scripted_registry import scripted_client

if TYPE_CHECKING:
    from tests.support.registries.scripted_http import Reply
    from tests.support.registries.scripted_registry import ScriptedClient

LIST = "/v2/a/b/tags/list"
ROUTE = f"GET {LIST}"


def page(*tags: str, link: str = "", rel: str = 'rel="next"') -> Reply:
    return says(200, json.dumps({"name": "a/b", "tags": list(tags)}), **({"Link": f"<{link}>; {rel}"} if link else {}))


async def tags(it: ScriptedClient) -> list[str]:
    return await it.client.tags(it.reference)


def queries(it: ScriptedClient) -> list[str]:
    return [asked.query for asked in it.registry.asked if asked.path == LIST]


async def test_a_registry_that_gives_all_tags_at_once_is_asked_once() -> None:
    many = [f"v{number}" for number in range(2500)]
    async with scripted_client({ROUTE: [page(*many)]}) as it:
        assert await tags(it) == many
        assert queries(it) == ["n=1000"]


@pytest.mark.parametrize("body", ['{"name": "a/b", "tags": null}', '{"tags": []}'])
async def test_a_repository_without_tags_has_an_empty_list(body: str) -> None:
    async with scripted_client({ROUTE: [says(200, body)]}) as it:
        assert await tags(it) == []


@pytest.mark.parametrize(
    ("link", "query"),
    [
        (f"{LIST}?last=2&n=2", "last=2&n=2"),  # Harbor, GitLab, ghcr
        (f"{LIST}?n=2&next_page=gAAA-%3D%2Fx", "n=2&next_page=gAAA-%3D%2Fx"),  # Quay: as it is written
        (f"http://registry.internal:8080{LIST}?last=2&n=2", "last=2&n=2"),  # a registry that does not know its own name
        ("?last=2&n=2", "last=2&n=2"),
        ("list?last=2", "last=2"),
    ],
)
async def test_the_next_page_is_where_the_link_says_and_always_on_the_registrys_own_host(link: str, query: str) -> None:
    async with scripted_client({ROUTE: [page("1", "2", link=link), page("3", "2")]}) as it:
        assert await tags(it) == ["1", "2", "3"]
        assert queries(it) == ["n=1000", query]


@pytest.mark.parametrize(
    ("links", "query"),
    [
        (['</a?x>; rel="prev", </b?y>; rel="next"'], "y"),
        (['</a?x>; rel="prev"', '</b?y>; title="z"; rel=next'], "y"),
        (['</b?y>; REL="last NEXT"'], "y"),
        (['</a?next=1>; rel="prev"'], None),
        ([], None),
    ],
)
def test_the_next_page_is_the_one_that_is_called_so(links: list[str], query: str | None) -> None:
    found = tag_pages.next_page(URL("http://host:1/v2/a/tags/list?n=1"), links)
    assert (None if found is None else found.query_string) == query


@pytest.mark.parametrize("link", ["/v2/a/tags/list; rel=next", "<http://[::1>; rel=next"])
def test_a_next_page_that_cannot_be_made_out_is_an_error(link: str) -> None:
    with pytest.raises(UnavailableError, match="invalid link to the next page of tags"):
        tag_pages.next_page(URL("http://host:1/v2/a/tags/list"), [link])


async def test_a_full_page_without_a_link_is_not_taken_for_the_last() -> None:
    full = [f"v{number:04}" for number in range(1000)]
    async with scripted_client({ROUTE: [page(*full), page("w")]}) as it:
        assert await tags(it) == [*full, "w"]
        assert queries(it) == ["n=1000", "n=1000&last=v0999"]
    async with scripted_client({ROUTE: [page(*full)]}) as it:  # it knows neither n nor last, and happens to have a thousand
        assert await tags(it) == full
        assert len(queries(it)) == 2


async def test_a_registry_that_refuses_the_pages_size_is_asked_for_its_own() -> None:
    refused = says(400, '{"errors": [{"code": "PAGINATION_NUMBER_INVALID"}]}')
    async with scripted_client({ROUTE: [refused, page("1", link=f"{LIST}?last=1"), page("2")]}) as it:
        assert await tags(it) == ["1", "2"]
        assert queries(it) == ["n=1000", "", "last=1"]
    async with scripted_client({ROUTE: [refused]}) as it:
        with pytest.raises(UnavailableError, match="answered 400 to a request for tags of a/b"):
            await tags(it)


async def test_pages_that_go_in_circles_are_an_error() -> None:
    async with scripted_client(
        {ROUTE: [page("1", link=f"{LIST}?last=1"), page("2", link=f"{LIST}?last=2"), page("3", link=f"{LIST}?last=1")]}
    ) as it:
        with pytest.raises(UnavailableError, match="pages that lead back to an earlier page"):
            await tags(it)
        assert len(queries(it)) == 3


async def test_pages_without_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tag_pages, "_MAX_PAGES", 5)
    replies = [page(f"v{number}", link=f"{LIST}?last={number}") for number in range(9)]
    async with scripted_client({ROUTE: replies}) as it:
        with pytest.raises(UnavailableError, match="lists more tags than are read"):
            await tags(it)
        assert len(queries(it)) == 5


async def test_all_pages_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tag_pages, "_TOTAL_LIMIT", 100)
    async with scripted_client(
        {ROUTE: [page(*"abcdef", link=f"{LIST}?last=f"), page(*"ghijkl", link=f"{LIST}?last=l"), page("m")]}
    ) as it:
        with pytest.raises(UnavailableError, match="lists more tags than are read"):
            await tags(it)


async def test_one_page_has_a_bound() -> None:
    async with scripted_client({ROUTE: [says(200, bytes(tag_pages.PAGE_LIMIT + 1))]}) as it:
        with pytest.raises(UnavailableError, match=f"more than the {tag_pages.PAGE_LIMIT} bytes"):
            await tags(it)


@pytest.mark.parametrize(
    "cut", [says(500), says(404, '{"errors": [{"code": "NAME_UNKNOWN"}]}'), says(403), says(400), says(200, "{}")]
)
async def test_a_list_that_is_cut_between_pages_is_an_error_and_never_a_shorter_list(cut: Reply) -> None:
    async with scripted_client({ROUTE: [page("1", link=f"{LIST}?last=1"), cut]}) as it:
        with pytest.raises(UnavailableError, match="/a/b:1: "):
            await tags(it)


async def test_a_refusal_in_the_middle_is_not_taken_for_one_of_the_pages_size() -> None:
    async with scripted_client({ROUTE: [page("1", link=f"{LIST}?n=1&last=1"), says(400), page("1")]}) as it:
        with pytest.raises(UnavailableError, match="answered 400"):
            await tags(it)


async def test_a_page_that_breaks_off_is_asked_for_again() -> None:
    body = json.dumps({"tags": ["1", "2"]}).encode()
    async with scripted_client({ROUTE: [breaks_off(body, 9), says(200, body[:9]), says(200, body)]}) as it:
        assert await tags(it) == ["1", "2"]


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"tags": 7}', "[" * 5000, '{"tags": "abc"}', '{"tags": [1]}', '{"tags": ["../x"]}']
)
async def test_what_is_no_list_of_tags_is_could_not_tell(body: str) -> None:
    async with scripted_client({ROUTE: [says(200, body)]}) as it:
        with pytest.raises(UnavailableError, match=r"not answer with a list of tags, after 4 attempts|lists invalid tags"):
            await tags(it)


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "NOT_FOUND"])
async def test_a_repository_is_gone_only_when_the_registry_says_so_in_words(code: str) -> None:
    async with scripted_client({ROUTE: [says(404, f'{{"errors": [{{"code": "{code}"}}]}}')]}) as it:
        with pytest.raises(NotFoundError, match="has no tags of a/b"):
            await tags(it)
    async with scripted_client({ROUTE: [says(404, "404 page not found", Docker_Distribution_Api_Version="registry/2.0")]}) as it:
        with pytest.raises(UnavailableError, match="not one of a registry"):
            await tags(it)


async def test_a_repository_that_is_not_shown_is_denied() -> None:
    async with scripted_client({ROUTE: [says(401, WWW_Authenticate='Basic realm="r"')]}) as it:
        with pytest.raises(DeniedError):
            await tags(it)


async def test_a_list_is_given_up_at_its_deadline_however_patient_its_pages_are() -> None:
    timeouts = RegistryTimeouts(listing=0.2, small=3600, idle=3600)
    async with scripted_client({ROUTE: [page("1", link=f"{LIST}?last=1"), hangs]}, timeouts=timeouts) as it:
        with pytest.raises(UnavailableError, match="did not list the tags of a/b within 0 s"):
            await tags(it)


async def test_tags_are_those_of_the_repository_whatever_tag_or_digest_the_reference_has() -> None:
    async with scripted_client({ROUTE: [page("1")]}) as it:
        for reference in (
            Reference(it.registry.address, "a/b"),
            Reference(it.registry.address, "a/b", "x", "sha256:" + "0a" * 32),
        ):
            assert await it.client.tags(reference) == ["1"]
