from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.resolver.hook import statuses
from publisher.resolver.hook.reply import failure, pack, success, unpack
from publisher.resolver.system import classad


@given(st.binary(max_size=200), st.floats(0, 1e6))
def test_what_one_process_sends_the_other_gets(answer: bytes, delay: float) -> None:
    assert unpack(pack(answer, delay)) == (answer, delay)


def test_the_status_stands_first_and_a_message_only_where_there_is_one() -> None:
    assert success("", {"WantSIF": True}) == b"HookStatusCode = 0\nWantSIF = true\n"
    assert success("image x", {}) == b'HookStatusCode = 0\nHookStatusMessage = "image x"\n'
    assert failure(101, "no image") == b'HookStatusCode = 101\nHookStatusMessage = "no image [no-image]"\n'


@pytest.mark.parametrize("message", ["two\nlines\tof it", 'say "no"', "x" * 5000])
def test_a_message_is_one_short_line_that_names_its_code(message: str) -> None:
    content = failure(statuses.FETCH, message)
    assert content.count(b"\n") == 2
    assert len(content) < 2000
    text = str(classad.parse(content)["hookstatusmessage"])
    assert text.endswith(" [fetch]")
    assert text[:50] == f"{' '.join(message.split())} [fetch]"[:50]
