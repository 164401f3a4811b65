"""Versions of the programs that decide about the bytes of a SIF."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from publisher.build.squash import Squasher
from publisher.build.toolset import check_accepted, tool_versions
from publisher.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.layers.emit import Output
    from publisher.layers.survey import StreamSurvey

TOOLS = {"publisher": "1", "apptainer": "1.4.5", "mksquashfs": "4.5.1", "zstd": "1.5.4", "compression": "zstd"}


class Named(Squasher):
    """A squasher of which only the names matter."""

    name, version = "mksquashfs", "4.5.1"

    def __init__(self, compression: str) -> None:
        self.compression = compression

    @contextlib.contextmanager
    def squash(self, out: Path, totals: StreamSurvey, *, offset: int, deadline: float) -> Iterator[Output]:
        raise NotImplementedError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with these programs, and with libraries that ldd names."""
    (tmp_path / "libzstd.so.1.5.4").touch()
    (tmp_path / "libzstd.so.1").symlink_to("libzstd.so.1.5.4")
    (tmp_path / "libz.so.1.2.13").touch()
    for name, script in {
        "apptainer": "echo apptainer version 1.4.5",
        "mksquashfs": ":",
        "ldd": f"echo 'libzstd.so.1 => {tmp_path}/libzstd.so.1 (0x1)'; echo 'libz.so.1 => {tmp_path}/libz.so.1.2.13 (0x1)'",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.usefixtures("programs")
def test_the_record_names_programs_library_and_compression() -> None:
    found = tool_versions(Named("zstd"))
    assert {**found, "publisher": "1"} == TOOLS
    assert tool_versions(Named("gzip"))["zlib"] == "1.2.13"


@pytest.mark.parametrize("script", ["exit 1", "echo statically linked"])
def test_a_library_that_cannot_be_found_has_an_unknown_version(script: str, programs: Path) -> None:
    (programs / "ldd").write_text(f"#!/bin/sh\n{script}\n")
    assert tool_versions(Named("zstd"))["zstd"] == "unknown"


def test_only_the_programs_that_the_operator_names_need_an_accepted_version() -> None:
    check_accepted(TOOLS, ())
    check_accepted(TOOLS, [("mksquashfs", "4.5.1"), ("mksquashfs", "4.6.1"), ("tar2sqfs", "1.2")])
    with pytest.raises(
        UsageError, match=r"this host has mksquashfs 4\.5\.1, and accepted_tools names mksquashfs 4\.6\.1"
    ) as caught:
        check_accepted(TOOLS, [("mksquashfs", "4.6.1"), ("apptainer", "1.4.5")])
    assert "add 'mksquashfs 4.5.1' to accepted_tools" in (caught.value.hint or "")
