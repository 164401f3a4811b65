"""The listener on loopback: who is heard, how much, and how often."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest

from publisher.errors import UsageError
from publisher.watch import listener
from publisher.watch.listener import LARGEST_BODY, Listener, ListenerOptions
from tests.unit.watch.test_events import QUAY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from publisher.contract.reference import Reference

SECRET = "0123456789abcdef"
BODY = json.dumps(QUAY).encode()


class Heard:
    """A listener, and what it has heard."""

    def __init__(self, per_minute: int = 1000) -> None:
        self.images: list[str] = []
        self.is_full = False
        self.now = 0.0
        options = ListenerOptions("127.0.0.1", 0, ["another secret, which is older", SECRET], per_minute)
        self.listener = Listener(options, self.add, lambda: self.now)

    def add(self, images: Iterable[Reference]) -> bool:
        self.images += [] if self.is_full else map(str, images)
        return not self.is_full

    async def post(
        self, path: str = "/events", headers: Mapping[str, str] | None = None, body: bytes | AsyncIterator[bytes] = BODY
    ) -> tuple[int, Mapping[str, str]]:
        url = f"http://127.0.0.1:{self.listener.port}{path}"
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
            await response.read()
            return response.status, response.headers


def signature(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/events", {"Authorization": f"Bearer {SECRET}"}),
        ("/events", {"Authorization": SECRET}),
        (f"/events/{SECRET}", {}),
        ("/events", signature(BODY)),
    ],
    ids=["distribution", "Harbor", "Docker Hub and Quay", "signature"],
)
async def test_a_registry_with_the_secret_is_heard(path: str, headers: Mapping[str, str]) -> None:
    heard = Heard()
    async with heard.listener:
        status, _ = await heard.post(path, headers)
    assert (status, heard.images) == (202, ["quay.io/htc/rocky:9", "quay.io/htc/rocky:latest"])


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/events", {}),
        ("/events", {"Authorization": "Bearer "}),
        ("/events", {"Authorization": "Bearer 0123456789abcdeF"}),
        ("/events/wrong", {}),
        ("/events/", {}),
        ("/events", signature(BODY, "0123456789abcdeF")),
        ("/events", signature(BODY + b" ")),
        ("/events", {"X-Hub-Signature-256": "sha256=\u00e4"}),
    ],
)
async def test_nobody_else_is_heard(path: str, headers: Mapping[str, str]) -> None:
    heard = Heard()
    async with heard.listener:
        status, _ = await heard.post(path, headers)
    assert status in {401, 404}
    assert heard.images == []


async def test_a_body_has_a_limit_and_must_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()

    async def large() -> AsyncIterator[bytes]:
        yield b" " * LARGEST_BODY
        yield b" "

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with heard.listener:
        status, _ = await heard.post(f"/events/{SECRET}", body=large())
        assert status == 413
        monkeypatch.setattr(listener, "_BODY_DEADLINE", 0.0)
        status, _ = await heard.post(f"/events/{SECRET}", body=slow())
        assert status == 408
    assert heard.images == []


async def test_what_is_no_event_and_what_cannot_wait_is_answered_so() -> None:
    heard = Heard()
    async with heard.listener:
        assert (await heard.post(f"/events/{SECRET}", body=b"{}"))[0] == 400
        assert (await heard.post(f"/events/{SECRET}?registry=hub.example.org"))[0] == 202
        heard.is_full = True
        status, headers = await heard.post(f"/events/{SECRET}")
    assert (status, headers["Retry-After"]) == (503, "60")
    assert heard.images == ["hub.example.org/htc/rocky:9", "hub.example.org/htc/rocky:latest"]


async def test_registries_are_limited_and_strangers_do_not_use_up_what_they_may_ask() -> None:
    heard = Heard(per_minute=2)
    async with heard.listener:
        strangers = [(await heard.post())[0] for _ in range(61)]
        assert strangers == [401] * 60 + [429]
        assert [(await heard.post(f"/events/{SECRET}"))[0] for _ in range(2)] == [202, 202]
        status, headers = await heard.post(f"/events/{SECRET}")
        assert (status, headers["Retry-After"]) == (429, "30")
        heard.now = 30
        assert (await heard.post(f"/events/{SECRET}"))[0] == 202


async def test_a_port_that_is_taken_is_a_usage_error() -> None:
    heard = Heard()
    async with heard.listener:
        other = Listener(ListenerOptions("127.0.0.1", heard.listener.port, [SECRET], 1), heard.add, lambda: 0)
        with pytest.raises(UsageError, match="nothing can listen at 127"):
            await other.__aenter__()
