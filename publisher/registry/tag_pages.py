"""Lists of tags, page after page, whole or not at all: a list that was cut short would make images look gone.

Registries differ: some give all at once whatever ``n`` says (docker-registry 2, Google), some give less than they were asked
for and a ``Link`` (Quay), with a path (Harbor, GitLab, ghcr) or a whole URL, some fill pages and forget the ``Link``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yarl import URL

from publisher.errors import UnavailableError
from publisher.net.retry import TransientError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

SIZE = 1000
"""Tags in a page, as other clients ask for."""
PAGE_LIMIT = 16 << 20
"""Bytes of one page: 100,000 tags as long as they may be."""
_TOTAL_LIMIT = 64 << 20
_PAGES = 2000
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_TARGET = re.compile(r"<([^<>]*)>([^<>]*)")
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s";,]+))', re.IGNORECASE)


@dataclass(frozen=True)
class Page:
    """The tags of one page, its size in bytes, and where the next one is (None: the registry names none)."""

    tags: list[str]
    size: int
    next: URL | None


async def collect(first: URL, fetch: Callable[[URL], Awaitable[Page]]) -> list[str]:
    """All tags, each once, in the order of their coming.

    Args:
        first: the first page's URL; ``n`` in its query says how many tags were asked for.
        fetch: fetches a page.

    Raises:
        UnavailableError: pages go in circles or do not end; and whatever ``fetch`` raises.
    """
    tags: dict[str, None] = {}
    asked: set[URL] = set()
    size, here = 0, first
    while True:
        if here in asked:
            raise UnavailableError(f"{here.host} lists tags in pages that go in circles")
        if len(asked) >= _PAGES or size > _TOTAL_LIMIT:
            raise UnavailableError(f"{here.host} lists tags without end")
        asked.add(here)
        page = await fetch(here)
        known = len(tags)
        tags.update(dict.fromkeys(page.tags))
        size += page.size
        following = page.next
        if following is None and len(tags) > known and str(len(page.tags)) == first.query.get("n"):
            following = first.update_query(last=page.tags[-1])  # a full page may not be the last, whatever is said or not
        if following is None:
            return list(tags)
        here = following


def parse(body: bytes, host: str, following: URL | None) -> Page:
    """A page from its body.

    Raises:
        TransientError: half a body, or something that is no list.
        UnavailableError: there are tags in it that cannot be.
    """
    try:
        tags = json.loads(body)["tags"] or []
    except (ValueError, TypeError, KeyError, RecursionError):
        raise TransientError(f"{host} answers with something that is no list of tags") from None
    if not isinstance(tags, list) or not all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in tags):
        raise UnavailableError(f"{host} lists tags that cannot be tags")
    return Page(tags, len(body), following)


def following(here: URL, links: Sequence[str]) -> URL | None:
    """The next page by ``Link`` headers (RFC 8288), None where they name none.

    Only path and query are taken from them: registries behind proxies name hosts that are not theirs, and nothing that is
    shown to this one may go to another. Both stay as they are written: what looks like an escape may be part of a key.

    Raises:
        UnavailableError: there is one, and it cannot be read.
    """
    for link in links:
        for target, parameters in _TARGET.findall(link):
            rels = {rel for quoted, plain in _REL.findall(parameters) for rel in (quoted or plain).lower().split()}
            if "next" in rels:
                return _on_this_host(here, target)
    if any("next" in re.sub(r"<[^<>]*>", "", link).lower() for link in links):
        raise UnavailableError(f"{here.host} names a next page of tags that cannot be made out")
    return None


def _on_this_host(here: URL, target: str) -> URL:
    try:
        there = here.join(URL(target, encoded=True))
        return URL.build(
            scheme=here.scheme,
            authority=here.raw_authority,
            path=there.raw_path,
            query_string=there.raw_query_string,
            encoded=True,
        )
    except ValueError:
        raise UnavailableError(f"{here.host} names a next page of tags that cannot be made out") from None
