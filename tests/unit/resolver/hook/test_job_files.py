from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.resolver.hook import job_files

if TYPE_CHECKING:
    from pathlib import Path


def test_a_job_finds_the_directory_under_its_own_name(tmp_path: Path) -> None:
    site, scratch = tmp_path / ".gwms.d", tmp_path / "scratch"
    (site / "bin").mkdir(parents=True)
    chirp = site / "bin" / "condor_chirp"
    chirp.write_text("#!/bin/sh\n")
    chirp.chmod(0o555)
    (site / "link").symlink_to("bin/condor_chirp")
    (site / "libs").symlink_to("bin")
    scratch.mkdir()
    for _ in range(2):  # a job that comes back finds it replaced
        job_files.copy(f"{site}/", str(scratch))
    copied = scratch / ".gwms.d" / "bin" / "condor_chirp"
    assert (copied.read_text(), copied.stat().st_mode & 0o777) == ("#!/bin/sh\n", 0o555)
    assert (scratch / ".gwms.d" / "link").readlink() == site.joinpath("bin/condor_chirp").relative_to(site)
    assert (scratch / ".gwms.d" / "libs").is_symlink()


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        job_files.copy(str(tmp_path / "absent"), str(tmp_path))
