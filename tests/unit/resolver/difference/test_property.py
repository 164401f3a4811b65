"""Differences with lying tables, damaged seeds and faulty servers, as chance or a fuzzer has them (ci/fuzz)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ep.difference_property import difference


@pytest.mark.untraced
@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300))
def test_it_ends_with_the_right_bytes_or_a_named_error(data: bytes) -> None:
    with TemporaryDirectory() as scratch:
        difference(data, Path(scratch))


@pytest.mark.parametrize("data", [b"", b"\1" * 200, bytes(range(256))])
def test_inputs_that_a_fuzzer_starts_with(data: bytes, tmp_path: Path) -> None:
    difference(data, tmp_path)
