from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract.errors import InvalidReferenceError
from publisher.contract.reference import Reference, parse

DIGEST = "sha256:" + "0f" * 32


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        ("htc/rocky:9", "docker.io/htc/rocky:9"),
        ("docker://htc/rocky:9", "docker.io/htc/rocky:9"),
        ("docker.io/debian:12", "docker.io/library/debian:12"),
        ("index.docker.io/htc/rocky:9", "docker.io/htc/rocky:9"),
        ("registry-1.docker.io/library/debian:12", "docker.io/library/debian:12"),
        ("hub.opensciencegrid.org/htc/rocky:9", "hub.opensciencegrid.org/htc/rocky:9"),
        ("ghcr.io/a/b/c", "ghcr.io/a/b/c:latest"),
        ("localhost/a:1", "localhost/a:1"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("[::1]:5000/a:1", "[::1]:5000/a:1"),
        ("host:5000/a/b:Tag_1.0-x", "host:5000/a/b:Tag_1.0-x"),
        ("host:65535/a:1", "host:65535/a:1"),
        ("65536.org/a:1", "65536.org/a:1"),
        (f"{'a' * 63}.org/a:1", f"{'a' * 63}.org/a:1"),
        ("a__b/c-d--e.f:1", "docker.io/a__b/c-d--e.f:1"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}"),
        (f"debian:12@{DIGEST}", f"docker.io/library/debian:12@{DIGEST}"),
    ],
)
def test_a_reference_is_completed(text: str, complete: str) -> None:
    assert str(parse(text)) == complete
    assert parse(complete) == parse(text)
    assert hash(parse(complete)) == hash(parse(text))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has no repository"),
        ("docker://", "it has no repository"),
        ("a//b", "is not a repository"),
        ("/a", "is not a repository"),
        ("a/", "is not a repository"),
        ("Debian", "capital letters"),
        ("a:", "is not a tag"),
        ("a:-x", "is not a tag"),
        ("a:" + "x" * 129, "is not a tag"),
        ("a:1:2", "is not a tag"),
        ("a@", "is not a digest"),
        ("a@sha256:12", "is not a digest"),
        (f"a@{DIGEST.upper()}", "is not a digest"),
        ("-host.org/a", "is not a registry host"),
        ("host:port/a", "is not a registry host"),
        ("host:123456/a", "is not a registry host"),
        ("host:65536/a", "is not a registry host"),
        ("[::1]:65536/a", "is not a registry host"),
        (f"{'a' * 64}.org/a", "is not a registry host"),
        (f"a.{'a' * 64}:80/a", "is not a registry host"),
        ("docker://http://a", "is no"),
        ("../a", "is no"),
        ("a/./b", "is not a repository"),
        ("a b", "is not a repository"),
        ("a\n", "is not a repository"),
        ("caf\u00e9", "is not a repository"),
        ("a:\u0661", "is not a tag"),
        ("host.org/" + "a" * 250, "more than 255 characters"),
    ],
)
def test_everything_else_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidReferenceError, match=why) as failure:
        parse(text)
    assert failure.value.exit_code == 1
    assert "\n" not in str(failure.value)


@given(st.text(max_size=40) | st.from_regex(r"[a-zA-Z0-9./:@_-]{0,40}", fullmatch=True))
def test_what_is_accepted_is_complete_and_stays_the_same(text: str) -> None:
    try:
        parsed = parse(text)
    except InvalidReferenceError:
        return
    assert parse(str(parsed)) == parsed
    assert parsed.tag or parsed.digest


def test_references_differ_in_every_part() -> None:
    texts = ["a/b:1", "c/b:1", "a/b:2", "ghcr.io/a/b:1", f"a/b:1@{DIGEST}", f"a/b@{DIGEST}"]
    assert len({parse(text) for text in texts}) == len(texts)
    assert parse("a/b:1") != "docker.io/a/b:1"
    assert repr(Reference("docker.io", "a/b", "1")) == "Reference('docker.io/a/b:1')"
