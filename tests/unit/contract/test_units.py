from __future__ import annotations

import pytest

from publisher.contract import units
from publisher.system import quantities as publishers


@pytest.mark.parametrize("text", ["1", "20 GB", "512MiB", "1.5 kB", " 7 TB ", "3 b", "2 KIB"])
def test_sizes_are_those_of_the_publishers_settings(text: str) -> None:
    assert units.size(text) == publishers.size(text)


@pytest.mark.parametrize("text", ["1", "90 s", "10 min", "1.5h", "14 d"])
def test_times_are_those_of_the_publishers_settings(text: str) -> None:
    assert units.seconds(text) == publishers.seconds(text)


def test_nothing_is_a_size_and_a_time_here() -> None:
    assert (units.size("0"), units.seconds("0 s"), units.whole("0")) == (0, 0.0, 0)


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 parsec", "1e9", "0x10", "1 2", "1.2.3", "inf", "nan", "٣", "1" * 400])
def test_anything_else_is_refused(text: str) -> None:
    for read in (units.size, units.seconds, units.whole):
        with pytest.raises(ValueError, match="is no "):
            read(text)


def test_a_whole_number_has_no_unit() -> None:
    assert units.whole("12") == 12
    with pytest.raises(ValueError, match="'12 s' is no whole number"):
        units.whole("12 s")
