from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.registry.challenge import Challenge, parse


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('Basic realm="a \\"quoted\\" one, with a comma"', [("basic", {"realm": 'a "quoted" one, with a comma'})]),
        ("Bearer realm=https://x/token , service=y", [("bearer", {"realm": "https://x/token", "service": "y"})]),
        ('BEARER Realm = "x"', [("bearer", {"realm": "x"})]),
        (
            'Negotiate, Basic realm="x", Bearer realm="y",scope=""',
            [("negotiate", {}), ("basic", {"realm": "x"}), ("bearer", {"realm": "y", "scope": ""})],
        ),
        ("Negotiate", [("negotiate", {})]),
        ("", []),
        ('="x"', []),
    ],
)
def test_challenges_are_taken_apart(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse([header]) == [Challenge(*one) for one in expected]


def test_several_headers_are_several_challenges() -> None:
    assert [one.scheme for one in parse(['Basic realm="x"', 'Bearer realm="y"'])] == ["basic", "bearer"]


@given(st.text(alphabet='Ba "\\,=\t', max_size=40))
def test_no_header_is_too_strange(header: str) -> None:
    assert all(one.scheme for one in parse([header]))
