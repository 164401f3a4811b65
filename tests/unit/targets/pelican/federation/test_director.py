"""Discovery and director of a federation: which of their answers are accepted, and which never are."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from publisher.errors import OriginError
from publisher.net.retry import RetryPolicy
from publisher.targets.origins.pelican import PelicanOrigin, UploadOptions
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.pelican.federation.director import parse_link
from tests.support.loopback import LOOPBACK
from tests.support.osdf.federation import CONFIGURATION, Director, Said
from tests.support.registries.scripted_http import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from publisher.targets.pelican.tokens import TokenScope

PATH = "/osg/images"
CONFIGURED = '{"director_endpoint": "%s"}'


class Counted:
    """A source that returns a new token each time."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def bearer(self, _rights: Sequence[TokenScope], _base: str) -> str:
        return f"secret-{next(self._numbers)}"


@pytest.fixture
def director(tmp_path: Path) -> Iterator[Director]:
    """Run a director that names an origin at which nothing listens."""
    _, tls = certificate(tmp_path, "localhost")
    with Director(tls, "/osg", "https://localhost:1") as running:
        yield running


@pytest.fixture
def options(tmp_path: Path) -> UploadOptions:
    return UploadOptions(
        networks=LOOPBACK, tokens=Counted(), ca_file=tmp_path / "authority.pem", retries=RetryPolicy(attempts=2, first_delay=0)
    )


def failure(director: Director, options: UploadOptions, path: str = PATH) -> str:
    """Return the message of the error when an origin is located."""
    with pytest.raises(OriginError) as refused:
        PelicanOrigin(OriginAddress(director.host, path, direct=False), options).size("x")
    assert "secret" not in str(refused.value)
    return str(refused.value)


def configured(director: Director) -> Said:
    return Said(200, {}, CONFIGURED % director.url)


def answered(director: Director, said: Said) -> None:
    """Set the director's response to each of two attempts."""
    director.instead = [configured(director), said, configured(director), said]


def test_the_director_is_asked_where_a_put_goes_and_sees_no_token(director: Director, options: UploadOptions) -> None:
    assert "localhost:1 cannot be reached" in failure(director, options)
    assert director.lines()[:2] == [f"GET {CONFIGURATION}", f"PUT {PATH}"]
    assert not any("authorization" in asked.headers for asked in director.asked)


def test_an_origin_that_does_not_answer_is_looked_for_anew(director: Director, options: UploadOptions) -> None:
    failure(director, options)
    assert director.lines() == [f"GET {CONFIGURATION}", f"PUT {PATH}"] * 2


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (f"http://localhost:1{PATH}", "not at an https URL"),
        (f"https://user:secret@localhost:1{PATH}", "not at an https URL"),
        (f"https://localhost:1{PATH}/elsewhere", "names another path"),
        ("https://localhost:1/other?authz=secret", "names another path"),
        ("", "not at an https URL"),
        ("https://[", "not at an https URL"),
    ],
)
def test_a_place_that_a_token_may_not_go_to_is_not_followed(
    director: Director, options: UploadOptions, location: str, said: str
) -> None:
    answered(director, Said(307, {"Location": location}))
    assert said in failure(director, options)
    assert director.lines()[1:] == [f"PUT {PATH}"]


def test_the_servers_of_the_link_header_come_before_the_location_and_its_token_is_dropped(
    director: Director, options: UploadOptions
) -> None:
    link = (
        f'<https://localhost:2{PATH}?authz=secret>; rel="duplicate"; pri=1, <https://localhost:3{PATH}>; rel="duplicate"; pri=2'
    )
    answered(director, Said(307, {"Location": f"https://localhost:4{PATH}", "Link": link}))
    assert "localhost:2 cannot be reached" in failure(director, options)


def test_servers_come_in_the_order_of_their_priorities() -> None:
    link = '<https://c/x>; rel=duplicate; pri=3, <https://d/x,y>, <https://a/x>;pri=1, <https://b/x>; pri="2"'
    assert parse_link(link) == ["https://a/x", "https://b/x", "https://c/x", "https://d/x,y"]
    assert parse_link("") == []


def test_only_origins_that_are_named_in_the_settings_are_spoken_to(director: Director, options: UploadOptions) -> None:
    assert "which is not in the setting origin_hosts" in failure(
        director, replace(options, allowed_hosts=frozenset({"origin.example:8443"}))
    )
    assert "cannot be reached" in failure(director, replace(options, allowed_hosts=frozenset({"localhost:1"})))


def test_a_director_that_answers_nobody_without_a_token_is_shown_one(director: Director, options: UploadOptions) -> None:
    director.instead = [configured(director), Said(403)]
    assert "localhost:1 cannot be reached" in failure(director, options)
    shown = [asked.headers.get("authorization") for asked in director.asked if asked.path == PATH]
    assert shown == [None, "Bearer secret-1", None]


@pytest.mark.parametrize(
    ("said", "words", "asked"),
    [
        (Said(404, {"Server": "pelican/7.1"}, '{"msg": "no such namespace"}'), "status 404", 1),
        (Said(404, {"Server": "ingress", "Content-Type": "text/html"}, "<html>"), "not from a director, after 2 attempts", 2),
        (Said(405, {}, "no Writes"), "lacks the capability", 1),
        (Said(403), "does not say where /osg/images is stored: status 403", 2),
        (Said(429), "status 429, after 2 attempts", 2),
        (Said(503, {}, "starting"), "status 503: starting, after 2 attempts", 2),
        (Said(200), "status 200", 1),
        (Said(301, {"Location": "https://elsewhere.example/"}), "it redirects the request, and redirects are not followed", 1),
    ],
)
def test_what_a_director_refuses_is_said_and_what_may_pass_is_asked_again(
    director: Director, options: UploadOptions, said: Said, words: str, asked: int
) -> None:
    answered(director, said)
    if said.status == 403:
        director.instead.insert(2, said)
    assert words in failure(director, options)
    assert director.lines().count(f"PUT {PATH}") == asked


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said(404), "does not name its director: status 404"),
        (Said(302, {"Location": "https://elsewhere.example/"}), "redirects are not followed"),
        (Said(200, {}, "<html>"), "is not a federation: its configuration names no director"),
        (Said(200, {}, "[]"), "is not a federation"),
        (Said(200, {}, CONFIGURED % "http://localhost:1"), "is not at an https URL"),
        (Said(200, {}, '{"director_endpoint": 7}'), "is not at an https URL"),
        (Said(200, {}, "x" * 100_000), "more than the 65536 bytes"),
    ],
)
def test_a_host_that_is_no_federation_is_an_error(director: Director, options: UploadOptions, said: Said, words: str) -> None:
    director.instead = [said]
    assert words in failure(director, options)
    assert director.lines() == [f"GET {CONFIGURATION}"]


def test_a_path_that_no_namespace_has_is_an_error(director: Director, options: UploadOptions) -> None:
    assert "no such namespace" in failure(director, options, "/elsewhere/images")


def test_a_federation_whose_certificate_is_not_trusted_is_an_error(director: Director, options: UploadOptions) -> None:
    assert "a certificate that is not trusted (if a private authority" in failure(director, replace(options, ca_file=None))
    assert director.asked == []
