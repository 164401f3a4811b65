"""Tokens: their sources, and the claims of those that the publisher makes."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import TYPE_CHECKING

import pytest

from publisher.errors import OriginError
from publisher.state.signing import read_private_key
from publisher.targets.pelican.jwt import MintedTokens, TokenClaims, thumbprint
from publisher.targets.pelican.tokens import CREATE, MODIFY, EnvironmentTokens, FileTokens, TokenScope, redact
from tests.support.osdf.tokens import Issuer

if TYPE_CHECKING:
    from pathlib import Path

SCOPES = [TokenScope(MODIFY, "/osg/images/.incoming/x"), TokenScope(CREATE, "/osg/images/sif/ab/y.sif")]


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


def minted(issuer: Issuer, where: Path, base: str | None = None) -> MintedTokens:
    key = read_private_key(issuer.save(where / "key.pem"))
    return MintedTokens(key, issuer.keyid, TokenClaims(issuer.url, base=base), time.time)


def test_a_token_that_is_made_here_is_sound_and_says_what_the_request_needs_and_no_more(issuer: Issuer, tmp_path: Path) -> None:
    token = minted(issuer, tmp_path).bearer(SCOPES, "/osg")
    assert token is not None
    header, claims = issuer.read(token)
    assert claims["scope"] == "storage.modify:/images/.incoming/x storage.create:/images/sif/ab/y.sif"
    assert (claims["iss"], claims["wlcg.ver"]) == (issuer.url, "1.0")
    assert float(str(claims["exp"])) - time.time() == pytest.approx(600, abs=30)
    assert header == {"alg": "ES256", "typ": "JWT", "kid": issuer.keyid}


def test_no_two_tokens_are_the_same(issuer: Issuer, tmp_path: Path) -> None:
    tokens = minted(issuer, tmp_path)
    assert tokens.bearer(SCOPES, "/osg") != tokens.bearer(SCOPES, "/osg")


@pytest.mark.parametrize(
    ("told", "set_", "scope"),
    [("/osg/images", None, "/.incoming/x"), ("/", None, "/osg/images/.incoming/x"), ("/", "/osg", "/images/.incoming/x")],
)
def test_scopes_are_relative_to_the_base_that_is_set_or_told(
    issuer: Issuer, tmp_path: Path, told: str, set_: str | None, scope: str
) -> None:
    token = minted(issuer, tmp_path, set_).bearer(SCOPES[:1], told)
    assert token is not None
    assert issuer.read(token)[1]["scope"] == f"storage.modify:{scope}"


def test_what_the_issuer_cannot_speak_for_is_an_error(issuer: Issuer, tmp_path: Path) -> None:
    for base in ("/os", "/elsewhere"):
        with pytest.raises(OriginError, match="is not below"):
            minted(issuer, tmp_path, base).bearer(SCOPES, "/osg")


def test_a_key_without_a_name_has_its_thumbprint() -> None:
    issuer = Issuer()
    jwk = issuer.jwks()["keys"][0]
    assert thumbprint(issuer._key.public_key()) == _rfc_7638(jwk)


def _rfc_7638(jwk: dict[str, str]) -> str:
    member = f'{{"crv":"P-256","kty":"EC","x":"{jwk["x"]}","y":"{jwk["y"]}"}}'
    return base64.urlsafe_b64encode(hashlib.sha256(member.encode()).digest()).rstrip(b"=").decode()


def test_a_token_file_is_read_anew_every_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    for token in ("one.two-three_four", "five"):
        path.write_text(f"{token}\n")
        assert FileTokens(path).bearer([], "/") == token


@pytest.mark.parametrize("content", ["", "two words", "a\nb", "caf\xe9"])
def test_a_file_that_holds_no_token_is_an_error_that_does_not_show_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file"
    path.touch(mode=0o600)
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(OriginError, match=r"file does not contain a valid token$"):
        FileTokens(path).bearer([], "/")


def test_a_token_file_that_is_missing_or_open_to_everybody_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(OriginError, match="No such file"):
        FileTokens(path).bearer([], "/")
    path.write_text("secret")
    path.chmod(0o644)
    with pytest.raises(OriginError, match="open to everybody"):
        FileTokens(path).bearer([], "/")


def test_the_environment_names_a_token_or_its_file_or_none(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("from-file")
    assert EnvironmentTokens({}).bearer([], "/") is None
    assert EnvironmentTokens({"BEARER_TOKEN_FILE": str(path)}).bearer([], "/") == "from-file"
    assert EnvironmentTokens({"BEARER_TOKEN": "itself", "BEARER_TOKEN_FILE": str(path)}).bearer([], "/") == "itself"


def test_tokens_are_hidden_in_what_others_say_also_where_they_are_cut_short(issuer: Issuer) -> None:
    token = issuer.token("storage.read:/")
    assert redact(f"Bearer {token} is refused") == "Bearer TOKEN is refused"
    assert redact(f"Bearer {token[:40]}") == "Bearer TOKEN"
    assert redact(f"authz=Bearer%20{token}&x=1") == "authz=Bearer%20TOKEN&x=1"
    assert redact("it is opaque-token-of-old, cut: opaque-token", "opaque-token-of-old") == "it is TOKEN cut: TOKEN"
