"""condor_history as a program; test_store.py has what is made of its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.usage import history

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_program_gets_the_configuration_of_htcondor_that_this_process_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "condor_history"
    program.write_text('#!/bin/sh\necho "$CONDOR_CONFIG $_CONDOR_SPOOL $OTHER"\n')
    program.chmod(0o755)
    for name in ("CONDOR_CONFIG", "_CONDOR_SPOOL", "OTHER"):
        monkeypatch.setenv(name, name.lower())
    assert history.ask(str(program), None, 0).split() == [b"condor_config", b"_condor_spool"]
