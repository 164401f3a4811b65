from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console as Terminal

from publisher.cli.console import Console
from publisher.system.live_table import TableDisplay
from publisher.system.progress import LineDisplay

if TYPE_CHECKING:
    import pytest

HOSTILE = "image \x1b[2J\x9b31m \u202e\rall is well"
SHOWN = r"image \x1b[2J\x9b31m \x202e\x0dall is well"


def test_a_result_and_a_message_show_escape_sequences_instead_of_obeying_them(capsys: pytest.CaptureFixture[str]) -> None:
    Console().show({}, [HOSTILE, "second line"], as_json=False)
    Console().tell(f"{HOSTILE}\nsecond line")
    said = capsys.readouterr()
    assert said.out == f"{SHOWN}\nsecond line\n"
    assert said.err == f"publisher: {SHOWN}\nsecond line\n"


def test_progress_shows_escape_sequences_instead_of_obeying_them() -> None:
    lines, terminal = io.StringIO(), io.StringIO()
    LineDisplay(lines).say(HOSTILE)
    TableDisplay(Terminal(file=terminal, width=200)).say(HOSTILE)
    assert lines.getvalue().strip() == terminal.getvalue().strip() == SHOWN
