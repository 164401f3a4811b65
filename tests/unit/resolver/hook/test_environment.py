from __future__ import annotations

import pytest

from publisher.resolver.hook import environment

NAMES = ("LD_LIBRARY_PATH", "PYTHONPATH")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("LD_LIBRARY_PATH=/opt/lib", ""),
        ("A=1 LD_LIBRARY_PATH=/opt/lib B=2", "A=1 B=2"),
        ("A='x  y' PYTHONPATH='/a b:/c' B=2", "A='x  y' B=2"),
        ("A='it''s PYTHONPATH=/x' 'LD_LIBRARY_PATH=/a ''quoted'' b' B=2", "A='it''s PYTHONPATH=/x' B=2"),
        ("MY_PYTHONPATH=/x PYTHONPATHS=/y", "MY_PYTHONPATH=/x PYTHONPATHS=/y"),
        ("A=PYTHONPATH=1  B=2", "A=PYTHONPATH=1  B=2"),
        ("", ""),
    ],
)
def test_variables_are_removed_whole_and_others_stay_as_they_were_written(text: str, left: str) -> None:
    assert environment.without(text, NAMES) == left
