"""Sizes, times and numbers as people write them."""

from __future__ import annotations

import math

import pytest

from publisher.system import quantities


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
    assert quantities.size(text) == size


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, "", "GB", "20 XB", "-5 GB", "1.5", "1e3", "1 000", "٣ GB", True, None, [], math.inf, math.nan]
)
def test_what_is_no_size_is_refused_with_what_to_write(value: object) -> None:
    with pytest.raises(ValueError, match="is no size; write a number of bytes, or a text such as '20 GB'"):
        quantities.size(value)


@pytest.mark.parametrize(
    ("text", "seconds"), [(2, 2), (0.5, 0.5), ("90", 90), ("90 s", 90), ("10 min", 600), ("4 h", 14400), ("1.5 d", 129600)]
)
def test_a_time_is_read_in_seconds(text: object, seconds: float) -> None:
    assert quantities.seconds(text) == seconds


@pytest.mark.parametrize("value", [0, -1, "4 hours", "h", True, None, math.inf, math.nan, "9" * 400])
def test_what_is_no_time_is_refused_with_what_to_write(value: object) -> None:
    with pytest.raises(ValueError, match="is no time; write a number of seconds, or a text such as '90 s'"):
        quantities.seconds(value)


@pytest.mark.parametrize(("text", "number"), [(128, 128), ("128", 128)])
def test_a_whole_number_is_read(text: object, number: int) -> None:
    assert quantities.whole(text) == number


@pytest.mark.parametrize("value", [0, -3, 1.5, "1.5", "128 MiB", "", True, None, math.inf])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is no whole number above zero"):
        quantities.whole(value)
