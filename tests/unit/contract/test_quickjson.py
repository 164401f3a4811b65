from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract.quickjson import loads

if TYPE_CHECKING:
    from collections.abc import Callable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.untraced
@given(VALUES, st.sampled_from(["", " ", "\n", "\t\r\n "]), st.booleans())
def test_every_value_is_that_of_json(value: object, blank: str, ascii_only: bool) -> None:
    content = f"{blank}{json.dumps(value, ensure_ascii=ascii_only)}{blank}".encode("utf-8", "surrogatepass")
    assert loads(content) == json.loads(content) == value


@given(st.one_of(st.binary(max_size=40), st.text('[]{}",:0123456789.eE+-nulltrfas \n\x00\\é', max_size=30).map(str.encode)))
def test_every_error_is_that_of_json(content: bytes) -> None:
    assert outcome(loads, content) == outcome(json.loads, content)


def outcome(load: Callable[[bytes], object], content: bytes) -> str:
    try:
        return repr(load(content))
    except ValueError as error:
        return f"{type(error)}: {error}"


def test_what_only_json_takes_it_takes() -> None:
    assert math.isnan(loads(b"NaN"))
    assert loads('{"a": 1}'.encode("utf-16")) == {"a": 1}
    assert loads(b'{"a": 1, "a": 2}') == {"a": 2}


def test_what_is_nested_too_deeply_is_no_crash() -> None:
    with pytest.raises(RecursionError):
        loads(b"[" * 200_000)
