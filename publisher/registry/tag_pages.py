"""Complete lists of tags from pages. A list is complete or an error: with a partial list, images would seem to be deleted.

Registries differ. Some return all tags whatever ``n`` is (docker-registry 2, Google). Some return fewer than ``n`` and a ``Link``
(Quay), which is a path (Harbor, GitLab, ghcr) or a whole URL. Some fill pages and send no ``Link``.
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
"""Tags that are requested per page, as other clients do."""
PAGE_LIMIT = 16 << 20
"""Bytes of one page: 100,000 tags of the greatest length."""
_TOTAL_LIMIT = 64 << 20
_MAX_PAGES = 2000
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_TARGET = re.compile(r"<([^<>]*)>([^<>]*)")
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s";,]+))', re.IGNORECASE)


@dataclass(frozen=True)
class Page:
    """A page of a list of tags.

    Attributes:
        tags: its tags.
        size: bytes of its body.
        next: the URL of the next page, None if the registry names none.
    """

    tags: list[str]
    size: int
    next: URL | None


async def collect(first: URL, fetch: Callable[[URL], Awaitable[Page]]) -> list[str]:
    """Return all tags without duplicates, in the registry's order.

    Args:
        first: the URL of the first page; ``n`` in its query is the number of tags per page.
        fetch: fetches a page.

    Raises:
        UnavailableError: a page leads back to an earlier one, or there are too many; and whatever ``fetch`` raises.
    """
    tags: dict[str, None] = {}
    fetched: set[URL] = set()
    size, current = 0, first
    while True:
        if current in fetched:
            raise UnavailableError(f"{current.host} lists tags in pages that lead back to an earlier page")
        if len(fetched) >= _MAX_PAGES or size > _TOTAL_LIMIT:
            raise UnavailableError(f"{current.host} lists more tags than are read")
        fetched.add(current)
        page = await fetch(current)
        known = len(tags)
        tags.update(dict.fromkeys(page.tags))
        size += page.size
        following = page.next
        if following is None and len(tags) > known and str(len(page.tags)) == first.query.get("n"):
            following = first.update_query(last=page.tags[-1])  # a full page may not be the last, even without a link
        if following is None:
            return list(tags)
        current = following


def parse(body: bytes, host: str, following: URL | None) -> Page:
    """Return a page from the body of a response.

    Raises:
        TransientError: the body is truncated or not a list of tags.
        UnavailableError: the list has invalid tags.
    """
    try:
        tags = json.loads(body)["tags"] or []
    except (ValueError, TypeError, KeyError, RecursionError):
        raise TransientError(f"{host} did not answer with a list of tags") from None
    if not isinstance(tags, list) or not all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in tags):
        raise UnavailableError(f"{host} lists invalid tags")
    return Page(tags, len(body), following)


def next_page(current: URL, links: Sequence[str]) -> URL | None:
    """Return the URL of the next page from ``Link`` headers (RFC 8288), None if they name none.

    Only path and query are used: registries behind proxies name hosts that are not theirs, and credentials for this host must not
    go to another. Both are used as they are written, because what looks like an escape may be part of a key.

    Raises:
        UnavailableError: a link to a next page cannot be parsed.
    """
    for link in links:
        for target, parameters in _TARGET.findall(link):
            relations = {name for quoted, plain in _REL.findall(parameters) for name in (quoted or plain).lower().split()}
            if "next" in relations:
                return _on_same_host(current, target)
    if any("next" in re.sub(r"<[^<>]*>", "", link).lower() for link in links):
        raise _invalid_link(current)
    return None


def _on_same_host(current: URL, target: str) -> URL:
    try:
        following = current.join(URL(target, encoded=True))
        return URL.build(
            scheme=current.scheme,
            authority=current.raw_authority,
            path=following.raw_path,
            query_string=following.raw_query_string,
            encoded=True,
        )
    except ValueError:
        raise _invalid_link(current) from None


def _invalid_link(current: URL) -> UnavailableError:
    return UnavailableError(f"{current.host} sent an invalid link to the next page of tags")
