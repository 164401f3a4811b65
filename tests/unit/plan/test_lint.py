from __future__ import annotations

import dataclasses
from datetime import date

import pytest

from publisher.contract.reference import Reference
from publisher.errors import DeniedError, NotFoundError, PublisherError, UnavailableError, UnknownHostError, UnsupportedError
from publisher.oci import Descriptor, Image, ImageConfig, ImageManifest, Platform
from publisher.plan.lint import CheckVerdict, judge, judge_pattern, judge_unlisted
from publisher.plan.model import UnlistedPattern
from tests.support.publisher.built_values import AMD64, ARM64, digest, entry

GB = 10**9


def image(platform: Platform, *sizes: int) -> Image:
    layers = tuple(Descriptor("", digest(f"layer {number}"), size) for number, size in enumerate(sizes))
    config = Descriptor("", digest("config"), 1)
    return Image(ImageManifest(digest(str(platform)), "", config, layers), ImageConfig(platform, (), b"{}"))


def test_a_sound_entry_says_what_it_would_publish_and_where() -> None:
    both = dataclasses.replace(entry("htc/rocky:9", [AMD64, ARM64]), line=7)
    found = judge(both, [image(AMD64, 100, 20), image(ARM64, 90)], GB)
    assert (found.verdict, found.line, found.size) == (CheckVerdict.FINE, 7, 210)
    assert found.paths == ("htc/rocky:9", ".arch/arm64/htc/rocky:9")
    assert found.platforms == ("amd64", "arm64")
    assert judge(entry("htc/rocky:9", formats=["sif"]), [image(AMD64, 1)], GB).paths == ()


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (UnavailableError("no answer"), CheckVerdict.UNKNOWN),
        (NotFoundError("no such image"), CheckVerdict.WRONG),
        (DeniedError("it is private"), CheckVerdict.WRONG),
        (UnsupportedError("schema 1"), CheckVerdict.WRONG),
    ],
)
def test_a_registry_that_is_down_does_not_make_an_entry_wrong(error: PublisherError, verdict: CheckVerdict) -> None:
    found = judge(entry("htc/rocky:9"), error, GB)
    assert found.verdict is verdict
    assert error.reason in found.reason


def test_what_needs_credentials_says_so() -> None:
    assert "without credentials" in judge(entry("htc/rocky:9"), DeniedError("401"), GB).reason


@pytest.mark.parametrize(
    ("max_size", "verdict"), [(None, CheckVerdict.FINE), (150, CheckVerdict.FINE), (149, CheckVerdict.WRONG)]
)
def test_an_image_that_is_too_large_already_compressed_is_wrong(max_size: int | None, verdict: CheckVerdict) -> None:
    wanted = entry("htc/rocky:9", [AMD64, ARM64], max_size=max_size)
    assert judge(wanted, [image(AMD64, 150), image(ARM64, 100)], GB).verdict is verdict
    assert judge(wanted, [image(AMD64, 2 * GB)], GB).verdict is CheckVerdict.WRONG


def test_wildcards_are_judged_by_the_names_that_they_expand_to() -> None:
    assert judge_pattern("a/b:9*", 3, []).verdict is CheckVerdict.WRONG
    fine = judge_pattern("a/b:9*", 3, ["a/b:91", "a/b:90"])
    assert (fine.verdict, fine.line) == (CheckVerdict.FINE, 3)
    assert "2 image(s)" in fine.reason
    down = UnlistedPattern("a/b:9*", lambda _: True, UnavailableError("no answer"))
    gone = UnlistedPattern("a/b:9*", lambda _: True, NotFoundError("no such repository"))
    assert [judge_unlisted(one, 3, "docker.io").verdict for one in (down, gone)] == [CheckVerdict.UNKNOWN, CheckVerdict.WRONG]


def test_an_entry_that_expires_soon_is_reported() -> None:
    near = entry("htc/rocky:9", expires=date(2027, 1, 20))
    assert judge(near, [image(AMD64, 1)], GB, date(2027, 1, 1)).expires == date(2027, 1, 20)
    assert judge(near, [image(AMD64, 1)], GB, date(2026, 11, 1)).expires is None
    assert judge(near, [image(AMD64, 1)], GB).expires is None


def test_an_entry_that_has_expired_is_wrong_because_it_would_be_left_out() -> None:
    past = entry("htc/rocky:9", expires=date(2026, 12, 31))
    found = judge(past, [image(AMD64, 1)], GB, date(2027, 1, 1))
    assert found.verdict is CheckVerdict.WRONG
    assert found.reason == "it expired on 2026-12-31, so it is not published; set a later date, or remove the entry"
    assert judge(past, [image(AMD64, 1)], GB, date(2026, 12, 31)).verdict is CheckVerdict.FINE, "the last day counts"


def test_a_misspelt_registry_is_wrong_and_gets_the_one_that_was_meant() -> None:
    found = judge(entry("ghrc.io/htc/rocky:9"), UnknownHostError("ghrc.io"), GB)
    assert (found.verdict, found.reason) == (
        CheckVerdict.WRONG,
        "ghrc.io cannot be found: no host has this name; did you mean ghcr.io?",
    )
    assert "correct the name" in judge(entry("registry.example.org/a/b:1"), UnknownHostError("registry.example.org"), GB).reason
    tokens = judge(entry("htc/rocky:9"), UnknownHostError("auth.docker.io"), GB)
    assert tokens.verdict is CheckVerdict.UNKNOWN, "the author has not written this host's name"


def test_a_private_image_names_the_setting_of_the_operator_and_the_key_of_the_entry() -> None:
    error = DeniedError("docker.io denies access to htc/rocky:9")
    for private, words in ((False, "its entry needs private: allowed"), (True, "its entry says private: allowed")):
        reason = judge(entry("htc/rocky:9", private=private), error, GB).reason
        assert "it does not exist, or cannot be pulled without credentials: docker.io denies access" in reason
        assert f"{words}, and the operator's settings need private_images: allowed" in reason


def test_sizes_are_shown_with_units() -> None:
    assert "10.0 GB compressed, but only 1.0 GB are allowed" in judge(entry("a/b:1"), [image(AMD64, 10 * GB)], GB).reason


def test_a_sif_at_a_url_has_to_be_readable_by_everybody() -> None:
    at_url = dataclasses.replace(entry("lab/solver:1"), reference=Reference("example.org", "x.sif", None, digest("x"), "https"))
    found = judge(at_url, DeniedError("example.org denies access to x.sif"), GB)
    assert found.verdict is CheckVerdict.WRONG
    assert found.reason == "example.org denies access to x.sif (a SIF at a URL must be readable by everybody)"
