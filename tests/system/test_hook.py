"""The hook ``prepare-job`` as a process of its own, without HTCondor: one answer whatever a job names and a host does."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.support.execution_point import REPOSITORY, ExecutionPoint, record, sif_content, version
from tests.support.hook import Hook

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
NAME = "htc/rocky:9"
CVMFS = f"/cvmfs/{REPOSITORY}/{NAME}"
CONTENT = sif_content(NAME, 100_000)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dist") / "image-resolver.pyz"
    subprocess.run([ROOT / "ci/release", "--output", path], check=True, capture_output=True)
    return path


@pytest.fixture
def ep(tmp_path: Path) -> ExecutionPoint:
    point = ExecutionPoint(tmp_path)
    point.publish(record(NAME, amd64=[version(NAME, sif=point.store(CONTENT))]), now=int(time.time()))
    return point


@pytest.fixture
def hook(program: Path, ep: ExecutionPoint) -> Hook:
    return Hook([program], ep, "--backoff=0", f"--trace={ep.root}/trace")


def test_a_job_gets_the_sandbox_itself_and_the_digest_for_its_log(hook: Hook, ep: ExecutionPoint) -> None:
    answer = hook.job(SingularityImage=CVMFS)
    assert (answer.code, answer.image, answer.form) == (0, f"{ep.repository}/{version(NAME).sandbox}", "sandbox")
    assert version(NAME).manifest in answer.message
    assert answer.talk == ""


def test_without_the_repository_it_gets_the_sif(hook: Hook, ep: ExecutionPoint) -> None:
    ep.repository.rename(ep.root / "away")
    answer = hook.job(ContainerImage=CVMFS, WantContainer=True, WantSandboxImage=True, JobUniverse=5)
    assert (answer.code, answer.form) == (0, "sif")
    assert Path(answer.image).read_bytes() == CONTENT
