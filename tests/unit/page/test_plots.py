"""The geometry of the plots."""

from __future__ import annotations

import pytest

from publisher.page import plots

DAY = plots.DAY


def test_a_line_goes_from_the_first_to_the_last_time_and_not_above_the_top() -> None:
    plot = plots.line_plot("Images", {"images": [(0, 0), (DAY, 37), (2 * DAY, 74)]}, plots.count_text)
    assert plot is not None
    assert plot.lines[0].points == "64.0,192.0 346.0,108.8 628.0,25.5"
    assert [tick.text for tick in plot.y_ticks] == ["0", "40", "80"]
    assert [tick.text for tick in plot.x_ticks] == ["1970-01-01", "1970-01-02", "1970-01-03"]
    assert plot.summary == "Images on 1970-01-03: images 74"


@pytest.mark.parametrize("points", [[], [(DAY, 5.0)]])
def test_there_is_no_plot_of_less_than_two_times(points: list[tuple[int, float]]) -> None:
    assert plots.line_plot("Images", {"images": points}, plots.count_text) is None


def test_a_plot_of_zeros_has_an_axis() -> None:
    plot = plots.line_plot("Images", {"images": [(0, 0), (DAY, 0)], "none": []}, plots.count_text)
    assert plot is not None
    assert (plot.y_ticks[2].text, len(plot.lines)) == ("1", 1)


def test_median_and_90th_percentile_are_those_of_each_week() -> None:
    lags = [(10, seconds) for seconds in range(1, 11)] + [(plots.WEEK + 10, 500)]
    assert plots.lag_series(lags) == {
        "median": [(0, 5.0), (plots.WEEK, 500.0)],
        "90th percentile": [(0, 9.0), (plots.WEEK, 500.0)],
    }


def test_bars_are_shares_of_the_longest_and_not_too_many() -> None:
    found = plots.bars({"docker.io": 4, "ghcr.io": 1, "quay.io": 0})
    assert [(bar.label, bar.percent) for bar in found] == [("docker.io", 100.0), ("ghcr.io", 25.0)]
    assert plots.bars({}) == []
    assert len(plots.bars({str(number): 1 for number in range(99)})) == 15


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        (plots.size_text, 0, "0 B"),
        (plots.size_text, 2e9, "2.0 GB"),
        (plots.time_text, 90, "90 s"),
        (plots.time_text, 600, "10 min"),
        (plots.time_text, 3 * 3600, "3 h"),
        (plots.time_text, 3 * DAY, "3 d"),
        (plots.count_text, 12345.0, "12,345"),
        (plots.count_text, 0.5, "0.5"),
    ],
)
def test_axes_are_written_with_units(text: object, value: float, shown: str) -> None:
    assert text(value) == shown  # type: ignore[operator]
