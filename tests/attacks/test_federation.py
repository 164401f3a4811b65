"""An attacker who runs a federation, or a namespace in an honest one, and other users of the same execution point."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.build import sif
from publisher.errors import OriginError
from publisher.net.retry import RetryPolicy
from publisher.resolver.errors import AccessDeniedError
from publisher.resolver.select import foreign
from publisher.targets.origins.pelican import PelicanOrigin, UploadOptions
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.pelican.tokens import NoTokens
from tests.support.ep.execution_point import NOW, ExecutionPoint
from tests.support.osdf.faulty_cache import FaultyServer
from tests.support.osdf.federation import ISSUER, Director, token_of
from tests.support.registries.scripted_http import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

ALICE, BOB = token_of(subject="alice"), token_of(subject="bob")
OBJECT = "/ospool/alice/private.sif"


class Federation:
    """A federation whose namespace ``/ospool`` needs a token, and an execution point that fetches what jobs name.

    The setting ``token-issuer`` names the federation and the issuer of its namespace.
    """

    def __init__(self, root: Path, stack: ExitStack) -> None:
        authority, tls = certificate(root, "localhost")
        image = root / "image.sif"
        image.write_bytes(bytes(sif.DATA_OFFSET) + b"hsqs" + b"content" * 1000)
        sif.write_sif_header(image, architecture="amd64", identity=bytes(32), epoch=1)
        self.content = image.read_bytes()
        self.server = stack.enter_context(FaultyServer({OBJECT: self.content}, tls))
        self.director = stack.enter_context(Director(tls, "/ospool", self.server.url, public=False))
        self.site = f"{self.director.host}/ospool={ISSUER}"
        self._ep = ExecutionPoint(root)
        self.authority = authority
        self._settings = {"ca": str(authority), "unknown": "fetch"}

    def fetch(self, path: str = OBJECT) -> bytes:
        """Return the SIF that a job gets that names the URL."""
        settings = self._ep.settings(**self._settings, token_issuer=[self.site])
        url = f"pelican://{self.director.host}{path}"
        _, cached, _ = foreign.ensure(url, settings, now=NOW, until=time.monotonic() + 60, starter=None)
        return Path(cached).read_bytes()

    def tokens(self) -> list[str]:
        """Return the tokens that the server received, empty ones for none."""
        return [asked.authorization.removeprefix("Bearer ") for asked in self.server.asked]


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Federation]:
    for name in ("BEARER_TOKEN_FILE", "_CONDOR_CREDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BEARER_TOKEN", ALICE)
    with ExitStack() as stack:
        yield Federation(tmp_path, stack)


def test_the_federation_of_the_site_gets_the_token(federation: Federation) -> None:
    assert federation.fetch() == federation.content
    assert federation.tokens() == [ALICE]


@pytest.mark.parametrize(
    "site",
    [f"osg-htc.org/ospool={ISSUER}", f"localhost/ospool={ISSUER}", "{host}/ospo=" + ISSUER, "{host}/ospool/bob=" + ISSUER],
    ids=["another federation", "another port", "the beginning of a name", "another prefix"],
)
def test_a_federation_that_only_the_job_names_gets_no_token(federation: Federation, site: str) -> None:
    federation.site = site.format(host=federation.director.host)
    federation.fetch()
    assert federation.tokens() == [""]


def test_a_namespace_whose_director_names_another_issuer_gets_no_token(federation: Federation) -> None:
    federation.director._issuer = "https://attacker.invalid"
    federation.fetch()
    assert federation.tokens() == [""]


def test_a_namespace_gets_no_token_of_an_issuer_that_the_site_does_not_name(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEARER_TOKEN", token_of("https://another.invalid"))
    federation.director._issuer = f"{ISSUER}, issuer=https://another.invalid"
    federation.fetch()
    assert federation.tokens() == [""]


@pytest.mark.parametrize("path", ["/ospool/../other/x.sif", "/ospool/%2e%2e/other/x.sif", "/ospool/./x.sif"])
def test_a_path_that_leads_out_of_the_prefix_gets_no_token(federation: Federation, path: str) -> None:
    federation.server.objects = {path.replace("%2e", "."): federation.content}
    federation.fetch(path)
    assert federation.tokens() == [""]


def test_what_the_director_said_about_issuers_is_checked_from_the_cache_as_well(federation: Federation) -> None:
    federation.director._issuer = "https://attacker.invalid"
    federation.server.objects["/ospool/another.sif"] = federation.content
    federation.fetch()
    federation.fetch("/ospool/another.sif")
    assert federation.tokens() == ["", ""]
    assert len(federation.director.asked) == 2, "discovery, and the namespace once"


def test_what_the_token_of_one_user_fetched_is_not_given_to_another(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert federation.fetch() == federation.content
    for token in (BOB, ""):
        monkeypatch.setenv("BEARER_TOKEN", token)
        federation.server.always = "403"
        with pytest.raises(AccessDeniedError, match="status 403"):
            federation.fetch()
    monkeypatch.setenv("BEARER_TOKEN", ALICE)
    assert federation.fetch() == federation.content
    assert federation.tokens() == [ALICE, BOB, ""], "Alice's second job needs no request"


def test_a_refusal_of_one_user_does_not_keep_another_from_the_file(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEARER_TOKEN", BOB)
    federation.server.always = "403"
    with pytest.raises(AccessDeniedError):
        federation.fetch()
    federation.server.always = ""
    monkeypatch.setenv("BEARER_TOKEN", ALICE)
    assert federation.fetch() == federation.content


def test_a_file_for_everybody_is_fetched_once_for_all_users(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    federation.director._public = True
    for token in (ALICE, BOB, ""):
        monkeypatch.setenv("BEARER_TOKEN", token)
        federation.fetch()
    assert federation.tokens() == [""]


@pytest.mark.parametrize("allowed", [False, True])
def test_a_director_leads_the_publisher_to_no_private_address(federation: Federation, allowed: bool) -> None:
    """The host of the federation is configured; the origin that its director names is not."""
    address = OriginAddress(federation.director.host, "/ospool", direct=False)
    hosts = frozenset({federation.server.url.removeprefix("https://")} if allowed else ())
    retries = RetryPolicy(attempts=1)
    options = UploadOptions(NoTokens(), allowed_hosts=hosts, ca_file=federation.authority, retries=retries)
    with pytest.raises(OriginError) as failure:
        PelicanOrigin(address, options).size("a")
    assert ("has no public address, so no request is sent to it" in str(failure.value)) is not allowed
