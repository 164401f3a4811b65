from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.resolver.transfer import token as bearer
from tests.support.osdf.federation import ISSUER, token_of

if TYPE_CHECKING:
    from pathlib import Path


TOKEN = token_of()


@pytest.mark.parametrize(
    ("content", "token"),
    [
        (f"{TOKEN}\n", TOKEN),
        (f'{{"access_token": "{TOKEN}", "expires_in": 1200}}', TOKEN),
        (token_of("https://another.invalid"), None),
        ("abc", None),
        ("a.%%%.c", None),
        ("a.bnVsbA.c", None),
        (f"{TOKEN} {TOKEN}", None),
        (f"{TOKEN}\r\n{TOKEN}", None),
        ('{"access_token": 7}', None),
        ('{"access_token"', None),
        ("", None),
        ("\xe4", None),
    ],
)
def test_a_token_is_a_file_or_in_its_json(tmp_path: Path, content: str, token: str | None) -> None:
    (tmp_path / "a.use").write_text(content)
    assert bearer.find({"BEARER_TOKEN_FILE": str(tmp_path / "a.use")}, {ISSUER}) == token
    assert bearer.find({"_CONDOR_CREDS": str(tmp_path)}, {ISSUER}) == token


def test_the_first_valid_token_wins(tmp_path: Path) -> None:
    (tmp_path / "a.top").write_text("not-for-use")
    (tmp_path / "b.use").write_text("{")
    from_condor, from_the_job = token_of(subject="condor"), token_of(subject="job")
    (tmp_path / "a.use").write_text(token_of("https://another.invalid"))
    (tmp_path / "c.use").write_text(from_condor)
    places = {"BEARER_TOKEN_FILE": str(tmp_path / "nowhere"), "_CONDOR_CREDS": str(tmp_path)}
    assert bearer.find(places, {ISSUER}) == from_condor
    assert bearer.find({**places, "BEARER_TOKEN": from_the_job}, {ISSUER}) == from_the_job


def test_without_a_token_there_is_none(tmp_path: Path) -> None:
    assert bearer.find({}, {ISSUER}) is None
    assert bearer.find({"_CONDOR_CREDS": str(tmp_path / "nowhere"), "BEARER_TOKEN": ""}, {ISSUER}) is None
    assert bearer.find({"BEARER_TOKEN": TOKEN}, set()) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x?authz=Bearer%20abc.def&a=b", "x?authz=TOKEN&a=b"),
        ("x?a=b&authz%3DBearer abc", "x?a=b&authz%3DTOKEN"),
        ('"Authorization: Bearer abc" was refused', '"Authorization: Bearer TOKEN" was refused'),
        ("%20eyJhbGciOi.eyJz.c2ln; no", "%20TOKEN; no"),
        ("t0ken, and 'anotherone'", "TOKEN, and 'TOKEN'"),
        ("t0ken-tha", "TOKEN"),
        ("x?t=a%2Fthird", "x?t=TOKEN"),
        ("transfer failed", "transfer failed"),
    ],
)
def test_what_looks_like_a_token_is_redacted(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.use").write_text('{"access_token": "anotherone"}')
    (tmp_path / "b.use").write_text("a/third")
    assert bearer.redact(text, {"BEARER_TOKEN": "t0ken\n", "_CONDOR_CREDS": str(tmp_path)}) == said


def test_a_token_that_is_not_text_does_no_harm() -> None:
    assert bearer.redact("transfer failed", {"BEARER_TOKEN": "\udce4"}) == "transfer failed"
