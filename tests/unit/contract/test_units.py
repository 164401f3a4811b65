"""Sizes, times and numbers as people write them, for the resolver's settings and for the publisher's files."""

from __future__ import annotations

import math

import pytest

from publisher.contract import units

SIZE_HELP = "is not a valid size; write a number of bytes, or a number with a unit such as '20 GB'"
TIME_HELP = "is not a valid time; write a number of seconds, or a number with a unit such as '90 s'"


@pytest.mark.parametrize("text", ["1", "20 GB", "512MiB", "1.5 kB", " 7 TB ", "3 b", "2 KIB"])
def test_both_sides_read_the_same_sizes(text: str) -> None:
    assert units.parse_size(text) == units.positive_size(text)


@pytest.mark.parametrize("text", ["1", "90 s", "10 min", "1.5h", "14 d"])
def test_both_sides_read_the_same_times(text: str) -> None:
    assert units.parse_seconds(text) == units.positive_seconds(text)


def test_a_setting_of_the_resolver_may_be_0() -> None:
    assert (units.parse_size("0"), units.parse_seconds("0 s"), units.parse_count("0")) == (0, 0.0, 0)


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 parsec", "1e9", "0x10", "1 2", "1.2.3", "inf", "nan", "٣", "1" * 400])
def test_anything_else_is_refused_by_the_resolver(text: str) -> None:
    for parse in (units.parse_size, units.parse_seconds, units.parse_count):
        with pytest.raises(ValueError, match="is not a valid "):
            parse(text)


def test_the_resolvers_whole_number_has_no_unit() -> None:
    assert units.parse_count("12") == 12
    with pytest.raises(ValueError, match="'12 s' is not a valid whole number"):
        units.parse_count("12 s")


@pytest.mark.parametrize(
    ("text", "share"), [("5 %", (0, 0.05)), ("100%", (0, 1.0)), ("20 GB", (20 * 10**9, 0.0)), ("0", (0, 0.0))]
)
def test_a_share_is_a_size_or_a_percentage(text: str, share: tuple[int, float]) -> None:
    assert units.parse_share(text) == share


@pytest.mark.parametrize("text", ["101 %", "-1 %", "1.5 %", "%", "٣%"])
def test_what_is_not_a_percentage_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid percentage"):
        units.parse_share(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        ("17", 17),
        ("17 B", 17),
        ("20 GB", 20 * 10**9),
        ("20GB", 20 * 10**9),
        (" 20 gb ", 20 * 10**9),
        ("2 kB", 2000),
        ("3 MB", 3_000_000),
        ("1 TB", 10**12),
        ("1 KiB", 1024),
        ("512 MiB", 512 << 20),
        ("1.5 GiB", 3 << 29),
        ("1 TiB", 1 << 40),
        ("123456789012345 B", 123456789012345),
    ],
)
def test_a_size_is_read_in_bytes(text: object, size: int) -> None:
    assert units.positive_size(text) == size


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, "", "GB", "20 XB", "-5 GB", "1.5", "1e3", "1 000", "٣ GB", True, None, [], math.inf, math.nan]
)
def test_what_is_not_a_size_is_refused_with_what_to_write(value: object) -> None:
    with pytest.raises(ValueError, match=SIZE_HELP):
        units.positive_size(value)


@pytest.mark.parametrize(
    ("text", "seconds"), [(2, 2), (0.5, 0.5), ("90", 90), ("90 s", 90), ("10 min", 600), ("4 h", 14400), ("1.5 d", 129600)]
)
def test_a_time_is_read_in_seconds(text: object, seconds: float) -> None:
    assert units.positive_seconds(text) == seconds


@pytest.mark.parametrize("value", [0, -1, "4 hours", "h", True, None, math.inf, math.nan, "9" * 400])
def test_what_is_not_a_time_is_refused_with_what_to_write(value: object) -> None:
    with pytest.raises(ValueError, match=TIME_HELP):
        units.positive_seconds(value)


@pytest.mark.parametrize(("text", "number"), [(128, 128), ("128", 128)])
def test_a_whole_number_is_read(text: object, number: int) -> None:
    assert units.positive_count(text) == number


@pytest.mark.parametrize("value", [0, -3, 1.5, "1.5", "128 MiB", "", True, None, math.inf])
def test_what_is_not_a_whole_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a valid whole number above 0"):
        units.positive_count(value)


def test_an_error_repeats_no_more_than_a_lines_worth_of_the_value() -> None:
    with pytest.raises(ValueError, match=f"^'{'x' * 59}… is not a valid size"):
        units.parse_size("x" * 400)
