"""Warnings about credentials that expire soon."""

from __future__ import annotations

import base64
import json
import time

import pytest

from publisher.registry.credential_expiry import expiry_of, expiry_warning
from publisher.registry.credentials import Credentials
from tests.support.registries.scripted_http import says
from tests.support.registries.scripted_registry import BODY, HERE, MANIFEST, scripted_client

NOW = 1_760_000_000.0  # 2025-10-09
DAY = 86400


def token(payload: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{body}.s3cret-signature"


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (NOW + 8 * DAY, None),
        (NOW + 6 * DAY, "the credential for ghcr.io expires on 2025-10-15: renew it with docker login ghcr.io"),
        (NOW - DAY, "the credential for ghcr.io expired on 2025-10-08: renew it with docker login ghcr.io"),
    ],
)
def test_a_token_that_ends_within_a_week_is_told_of(end: float, expected: str | None) -> None:
    for credentials in (Credentials(identity_token=token({"exp": end})), Credentials("me", token({"exp": end}))):
        assert expiry_warning("ghcr.io", credentials, NOW) == expected


def test_what_a_helper_makes_anew_each_time_may_end_soon() -> None:
    assert expiry_warning("ghcr.io", Credentials(identity_token=token({"exp": NOW + 1}), from_helper=True), NOW) is None


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "password",
        "a.b",
        "a.b.c",
        "..",
        "\u00e9.\u00e9.\u00e9",
        token({}),
        token([]),
        token(7),
        token({"exp": "soon"}),
        token({"exp": 1e40}),
        token({"exp": float("inf")}),
    ],
)
def test_what_says_nothing_of_its_end_has_none(secret: str) -> None:
    assert expiry_of(secret) is None


async def test_the_client_warns_once_of_a_registry_that_it_asked_with_such_a_token() -> None:
    ending = Credentials("me", token({"exp": time.time() + DAY}))
    routes = {"GET /v2/": [says(401, WWW_Authenticate='Basic realm="r"')], f"HEAD {MANIFEST}": [says(200, BODY, **HERE)]}
    async with scripted_client(routes, credentials=ending) as it:
        assert it.client.warnings() == []
        for _ in range(2):
            await it.head()
        (warning,) = it.client.warnings()
        assert warning.startswith(f"the credential for {it.registry.address} expires on 20")
        assert "s3cret" not in warning
