"""The libraries that a program is linked with, as ldd says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.build.squash.linked import library_path, library_version

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ldd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose ldd names two libraries."""
    (tmp_path / "libzstd.so.1.5.4").touch()
    (tmp_path / "libzstd.so.1").symlink_to("libzstd.so.1.5.4")
    (tmp_path / "libz.so.1.2.13").touch()
    program = tmp_path / "ldd"
    lines = [f"libzstd.so.1 => {tmp_path}/libzstd.so.1 (0x1)", f"libz.so.1 => {tmp_path}/libz.so.1.2.13 (0x1)"]
    program.write_text("#!/bin/sh\n" + "\n".join(f"echo '{line}'" for line in lines) + "\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


def test_a_library_has_a_path_and_the_version_of_its_file(ldd: Path) -> None:
    path = library_path("mksquashfs", "libzstd")
    assert path == str(ldd.with_name("libzstd.so.1"))
    assert library_version(path) == "1.5.4"
    assert library_version(library_path("mksquashfs", "libz")) == "1.2.13"


@pytest.mark.parametrize("script", ["exit 1", "echo statically linked"])
def test_a_library_that_cannot_be_found_has_no_path_and_an_unknown_version(script: str, ldd: Path) -> None:
    ldd.write_text(f"#!/bin/sh\n{script}\n")
    assert library_path("mksquashfs", "libzstd") is None
    assert library_version(None) == "unknown"
