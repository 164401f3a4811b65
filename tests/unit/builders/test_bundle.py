"""The file of the build step as a file; tests/system/pool runs it in jobs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

from publisher.builders.bundle import write_bundle
from publisher.builders.orders import UNSUITABLE, JobReport

if TYPE_CHECKING:
    from pathlib import Path


def test_the_file_has_this_program_and_the_packages_that_it_imports(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    with zipfile.ZipFile(bundle) as archive:
        names = set(archive.namelist())
    assert {"__main__.py", "publisher/builders/step.py", "aiohttp/__init__.py"} <= names
    for package in ("zstandard/", "pyfastcdc/"):  # the second is imported when a SIF is cut
        assert any(name.startswith(package) and name.endswith(".so") for name in names)
    assert not any(name.startswith(("pydantic/", "htcondor2/", "json/")) or "__pycache__" in name for name in names)
    made = bundle.stat().st_mtime_ns
    assert write_bundle(tmp_path) == bundle
    assert bundle.stat().st_mtime_ns == made, "it is there already"
    check_machine_without_python(bundle, tmp_path / "job")


def check_machine_without_python(bundle: Path, directory: Path) -> None:
    """A machine without the right Python says so in a report, and returns the files that HTCondor waits for."""
    script = bundle.read_bytes().partition(b"\nexit 2\n")[0].decode()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    directory.mkdir()
    elsewhere = script.replace(str(tuple(sys.version_info[:2])), "(2, 7)")
    subprocess.run(["/bin/sh"], input=elsewhere, text=True, cwd=directory, check=True, timeout=60)
    report = JobReport.parse((directory / "report.json").read_bytes())
    assert (report.outcome, report.reason) == (UNSUITABLE, f"it has no Python {version}; the setting condor_python names one")
    assert {path.name for path in directory.iterdir()} == {"report.json", "image.sif", "files.zst"}
