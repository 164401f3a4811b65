from __future__ import annotations

from dataclasses import replace

import pytest

from publisher.errors import PublishedManifestError
from publisher.state.outcomes import FAILING, GONE, LastOutcome, Outcomes

FIRST = LastOutcome(FAILING, "no shell", since=1000).again("no shell", 1000, "sha256:a", backs_off=True)
KNOWN = Outcomes({"htc/rocky:9": FIRST}, {"docker.io/htc/rocky:*": ("htc/rocky:9", "htc/rocky:8")}, 900, 1000, "disk full")


def test_a_document_says_what_was_encoded() -> None:
    assert Outcomes.decode(KNOWN.encode()) == KNOWN
    assert Outcomes.decode(Outcomes().encode()) == Outcomes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"{" * 100_000,
        KNOWN.encode().replace(b'"since"', b'"sinc"'),
        KNOWN.encode().replace(b'"patterns":{', b'"patterns":3,"x":{'),
    ],
)
def test_a_damaged_document_is_refused(content: bytes) -> None:
    with pytest.raises(PublishedManifestError, match="damaged"):
        Outcomes.decode(content)


def test_a_document_of_a_newer_publisher_is_refused() -> None:
    with pytest.raises(PublishedManifestError, match="newer publisher"):
        Outcomes.decode(KNOWN.encode().replace(b'"schema":1', b'"schema":2'))


def test_the_delay_doubles_from_the_second_failure_on_up_to_a_day() -> None:
    delays, last = [], FIRST
    assert last.next_try == 0
    for _ in range(9):
        last = last.again("no shell", 5000, "sha256:a", backs_off=True)
        delays.append(last.next_try - 5000)
    assert delays == [900, 1800, 3600, 7200, 14400, 28800, 57600, 86400, 86400]
    assert (last.tries, last.since, last.last_try) == (10, 1000, 5000)


def test_another_attempt_begins_to_count_anew() -> None:
    twice = FIRST.again("no shell", 2000, "sha256:a", backs_off=True)
    other = twice.again("no shell", 3000, "sha256:b", backs_off=True)
    assert (other.tries, other.next_try, other.since) == (1, 0, 1000)


def test_a_failure_that_is_not_the_images_fault_is_tried_again_in_the_next_run() -> None:
    assert FIRST.again("the registry is down", 2000, "sha256:a").next_try == 0


def test_numbers_of_tries_and_times_do_not_change_what_is_said() -> None:
    again = FIRST.again("no shell", 2000, "sha256:a", backs_off=True)
    later = replace(KNOWN, images={"htc/rocky:9": again}, finished=2000, problem=None)
    assert KNOWN.says_the_same(later)
    down = replace(FIRST, reason="docker.io failed 3 times in a row")
    still = replace(FIRST, reason="docker.io failed 59 times in a row")
    assert Outcomes({"a:1": down}).says_the_same(Outcomes({"a:1": still}))


def test_what_is_expected_to_pass_is_nothing_new() -> None:
    down = FIRST.again("the registry is down", 2000, "sha256:a", passing=True)
    assert Outcomes().says_the_same(Outcomes({"a:1": down}))


@pytest.mark.parametrize(
    "other",
    [
        replace(KNOWN, images={}),
        replace(KNOWN, images={"htc/rocky:9": replace(FIRST, state=GONE)}),
        replace(KNOWN, images={"htc/rocky:9": replace(FIRST, reason="too large")}),
        replace(KNOWN, patterns={}),
    ],
)
def test_another_state_reason_or_pattern_says_something_else(other: Outcomes) -> None:
    assert not KNOWN.says_the_same(other)
