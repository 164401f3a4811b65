"""Disks that fail at each single write: what is served stays right, and the message says what to do."""

from __future__ import annotations

import pytest

from tests.support.machine.failing_writes import ERRORS, run_scenario

pytestmark = pytest.mark.system

SCENARIOS = {
    "a publication serves nothing wrong, and nothing blocked returns": ("publisher.failing_publication", [50]),
    "a witness shows nothing wrong, and gets the rest later": ("publisher.failing_witness", [8, 30]),
    "an origin serves only what was uploaded": ("osdf.failing_upload", [7]),
    "a cache hands out only right bytes": ("ep.failing_cache", [10]),
    "a store of layers keeps only right bytes": ("registries.failing_store", [10]),
    "a build keeps nothing or the right SIF": ("publisher.failing_build", [20, 20, 4]),
    "what Apptainer adds is whole or is not there": ("publisher.failing_metadata", [40]),
    "a sandbox is whole or is not there": ("publisher.failing_sandbox", [8]),
    "an execution point trusts only right manifests": ("ep.failing_manifest", [15]),
    "a run remembers the old outcomes or the new ones": ("publisher.failing_state", [8]),
    "a CVMFS transaction publishes a whole revision or none": ("cvmfs.failing_spool", [20]),
}
"""What is shown -> the scenario, and how many writes have to fail at least: of the publisher, or of each program."""


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("shown", SCENARIOS)
def test_a_failing_disk(shown: str, error: str) -> None:
    module, least = SCENARIOS[shown]
    failed = run_scenario(f"tests.support.{module}", error)
    assert [count >= most for count, most in zip(failed, least, strict=True)] == [True] * len(least), failed
