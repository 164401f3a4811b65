from __future__ import annotations

from email.utils import formatdate

import pytest

from publisher.net.server_dates import ServerDates

NOW = 1_800_000_000.0


def test_what_a_server_said_goes_on_with_the_monotonic_clock() -> None:
    elapsed = 5.0
    dates = ServerDates(lambda: elapsed)
    dates.record("one.example", {"Date": formatdate(NOW, usegmt=True)})
    assert dates.compare(NOW).agreeing == 1
    elapsed += 3600
    assert dates.compare(NOW).differing == {"one.example": NOW + 3600}, "the clock was set back meanwhile"
    assert dates.compare(NOW + 3600).is_right is True


def test_the_last_word_of_a_server_counts_and_each_has_one_voice() -> None:
    dates = ServerDates(lambda: 0.0)
    for date in (NOW - 86400, NOW - 86400, NOW):
        dates.record("one.example", {"Date": formatdate(date, usegmt=True)})
    dates.record("two.example", {"Date": formatdate(NOW - 86400, usegmt=True)})
    assert (dates.compare(NOW).agreeing, dates.compare(NOW).is_right) == (1, None)


def test_an_answer_from_a_cache_is_as_old_as_its_age() -> None:
    dates = ServerDates(lambda: 0.0)
    dates.record("one.example", {"Date": formatdate(NOW - 7200, usegmt=True), "Age": "7200"})
    assert dates.compare(NOW).is_right is True


@pytest.mark.parametrize("headers", [{}, {"Date": ""}, {"Date": "yesterday"}, {"Date": "Fri, 99 Jan 2027 08:00:00 GMT"}])
def test_an_answer_without_a_valid_date_says_nothing(headers: dict[str, str]) -> None:
    dates = ServerDates(lambda: 0.0)
    dates.record("one.example", headers)
    assert dates.compare(NOW).is_right is None
