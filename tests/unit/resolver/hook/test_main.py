"""The hook as a program: what it reads and writes, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.hook import statuses
from tests.support.checkout import ROOT
from tests.support.ep.execution_point import REPOSITORY, ExecutionPoint, record, sif_content, sif_of, version
from tests.support.ep.hook import job_ad, reply

if TYPE_CHECKING:
    from typing import Any

    from tests.support.ep.hook import Reply

NAME = "htc/rocky:9"
PROGRAM = "import sys; from publisher.resolver.hook.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> ExecutionPoint:
    ep = ExecutionPoint(tmp_path_factory.mktemp("site"))
    content = sif_content(NAME)
    ep.store(content)
    ep.publish(record(NAME, amd64=[version(NAME, sif=sif_of(content))]), now=int(time.time()))
    return ep


def start(ep: ExecutionPoint, *more: str, **streams: Any) -> subprocess.Popen[bytes]:
    flags = ["--repository-name", REPOSITORY, "--repository", str(ep.repository), "--origin", str(ep.origin), "--arch", "amd64"]
    flags += ["--cache", str(ep.cache), "--public-key", str(ep.keys / "current.pem"), "--backoff", "0 s", *more]
    command = [sys.executable, "-c", PROGRAM, "prepare-job", *flags]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen(command, cwd=ROOT, **streams)


def answer(ep: ExecutionPoint, content: bytes, *more: str) -> Reply:
    process = start(ep, *more)
    output, talk = process.communicate(content)
    assert process.returncode == 0, talk
    return reply(output, talk.decode())


def test_a_job_gets_its_image(site: ExecutionPoint) -> None:
    assert answer(site, job_ad(ContainerImage=NAME)).image == f"{site.repository}/{version(NAME).sandbox}"


def test_without_a_job_ad_and_with_wrong_settings_the_answer_says_so(site: ExecutionPoint) -> None:
    for content in (b"", b" \n", b"x" * (1 << 24)):
        assert answer(site, content).code == statuses.NO_AD
    wrong = answer(site, job_ad(ContainerImage=NAME), "--backof", "3 s")
    assert wrong.code >= 300, "the job goes elsewhere"
    assert "backof" in wrong.message


def test_a_job_ad_that_does_not_end_is_not_waited_for(site: ExecutionPoint) -> None:
    reading, writing = os.pipe()
    try:
        with start(site, "--deadline", "0.2 s", stdin=reading) as process:
            output, talk = process.communicate()
        assert reply(output, talk.decode()).code == statuses.NO_AD
    finally:
        os.close(reading)
        os.close(writing)


def test_an_answer_that_cannot_be_written_is_no_answer(site: ExecutionPoint) -> None:
    """HTCondor would hold the job of a hook that ends with a status; one that died by a signal is requeued."""
    reading, writing = os.pipe()
    os.close(reading)
    with start(site, stdout=writing) as process:
        os.close(writing)
        process.communicate(job_ad(ContainerImage=NAME))
    assert process.returncode == -signal.SIGKILL
