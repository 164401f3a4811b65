"""Disks that fail at each single write: what is served stays right, and the message says what to do."""

from __future__ import annotations

import pytest

from tests.support.machine.failing_writes import ERRORS, run_module

pytestmark = pytest.mark.system


@pytest.mark.parametrize("error", ERRORS)
def test_a_publication_serves_nothing_wrong_and_nothing_blocked_returns(error: str) -> None:
    said = run_module("tests.support.publisher.failing_publication", error)
    assert int(said.splitlines()[-1].split()[0]) > 50, "that many writes failed"


@pytest.mark.parametrize("error", ERRORS)
def test_a_cache_hands_out_only_right_bytes(error: str) -> None:
    said = run_module("tests.support.ep.failing_cache", error)
    assert int(said.splitlines()[-1].split()[0]) > 10, "that many writes failed"


@pytest.mark.parametrize("error", ERRORS)
def test_a_store_of_layers_keeps_only_right_bytes(error: str) -> None:
    said = run_module("tests.support.registries.failing_store", error)
    assert int(said.splitlines()[-1].split()[0]) > 10, "that many writes failed"


@pytest.mark.parametrize("error", ERRORS)
def test_a_build_keeps_nothing_or_the_right_sif(error: str) -> None:
    said = run_module("tests.support.publisher.failing_build", error).splitlines()[-1].split()
    assert int(said[0]) > 20, "that many writes of the publisher failed"
    assert int(said[5]) > 3, "that many writes of mksquashfs failed"


@pytest.mark.parametrize("error", ERRORS)
def test_an_execution_point_trusts_only_right_manifests(error: str) -> None:
    said = run_module("tests.support.ep.failing_manifest", error)
    assert int(said.splitlines()[-1].split()[0]) > 20, "that many writes failed"


@pytest.mark.parametrize("error", ERRORS)
def test_a_run_remembers_the_old_outcomes_or_the_new_ones(error: str) -> None:
    said = run_module("tests.support.publisher.failing_state", error)
    assert int(said.splitlines()[-1].split()[0]) > 8, "that many writes failed"


@pytest.mark.parametrize("error", ERRORS)
def test_a_cvmfs_transaction_publishes_a_whole_revision_or_none(error: str) -> None:
    said = run_module("tests.support.cvmfs.failing_spool", error)
    assert int(said.splitlines()[-1].split()[0]) > 20, "that many writes failed"
