"""Versions of the programs that decide about the bytes of a SIF."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from publisher.build.squash.programs import ProgramSquasher
from publisher.build.toolset import check_accepted, tool_versions
from publisher.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from publisher.layers.emit import Output
    from publisher.layers.survey import StreamSurvey

TOOLS = {"publisher": "1", "apptainer": "1.4.5", "mksquashfs": "4.5.1", "zstd": "1.5.4", "compression": "zstd"}


class Named(ProgramSquasher):
    """A squasher of which only the names matter."""

    name, version = "mksquashfs", "4.5.1"
    versions: Mapping[str, str] = {"mksquashfs": "4.5.1", "zstd": "1.5.4"}

    def __init__(self, compression: str) -> None:
        self.compression = compression

    @contextlib.contextmanager
    def stream(self, out: Path, totals: StreamSurvey, *, offset: int, deadline: float) -> Iterator[Output]:
        raise NotImplementedError


def test_the_tools_are_programs_library_and_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apptainer").write_text("#!/bin/sh\necho apptainer version 1.4.5\n")
    (tmp_path / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert {**tool_versions(Named("zstd")), "publisher": "1"} == TOOLS


def test_only_the_programs_that_the_operator_names_need_an_accepted_version() -> None:
    check_accepted(TOOLS, ())
    check_accepted(TOOLS, [("mksquashfs", "4.5.1"), ("mksquashfs", "4.6.1"), ("tar2sqfs", "1.2")])
    with pytest.raises(
        UsageError, match=r"this host has mksquashfs 4\.5\.1, and accepted_tools names mksquashfs 4\.6\.1"
    ) as caught:
        check_accepted(TOOLS, [("mksquashfs", "4.6.1"), ("apptainer", "1.4.5")])
    assert "add 'mksquashfs 4.5.1' to accepted_tools" in (caught.value.hint or "")
