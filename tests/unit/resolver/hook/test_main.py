"""The hook as a program: what it reads and writes, and how it ends."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.cache import pins
from publisher.resolver.hook import main, statuses
from publisher.resolver.hook.reply import pack
from publisher.resolver.system import parent_death
from tests.support.checkout import ROOT
from tests.support.ep.execution_point import REPOSITORY, ExecutionPoint, record, sif_content, sif_of, version
from tests.support.ep.hook import job_ad, reply

if TYPE_CHECKING:
    from pathlib import Path
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


def answer(ep: ExecutionPoint, content: bytes, *more: str, **streams: Any) -> Reply:
    process = start(ep, *more, **streams)
    output, talk = process.communicate(content)
    assert process.returncode == 0, talk
    return reply(output, talk.decode())


def test_a_job_gets_its_image(site: ExecutionPoint) -> None:
    assert answer(site, job_ad(ContainerImage=NAME)).image == f"{site.repository}/{version(NAME).sandbox}"


def test_without_a_job_ad_and_with_wrong_settings_the_answer_says_so(site: ExecutionPoint) -> None:
    for content in (b"", b" \n", b"x" * (1 << 24)):
        assert answer(site, content).code == statuses.NO_AD
    at_once = {**os.environ, "IMAGE_RESOLVER_BACKOFF": "0 s"}  # where the flags are wrong, only the environment counts
    wrong = answer(site, job_ad(ContainerImage=NAME), "--backof", "3 s", env=at_once)
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


def test_the_parent_death_signal_is_requested_only_between_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.12, an import in a signal's handler may break the one that it interrupts (KeyError in importlib)."""
    requested: list[tuple[int, int]] = []
    monkeypatch.setattr(parent_death, "request", lambda *request: requested.append(request))
    monkeypatch.setattr(main, "_WARM_TIME", 3600.0)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "seen", requested, raising=False)
    module = "import signal, sys\nsignal.raise_signal(signal.SIGALRM)\nREQUESTED = list(sys.seen)\n"
    (tmp_path / "imported_meanwhile.py").write_text(module)
    handler = signal.getsignal(signal.SIGALRM)
    try:
        main._end_with_parent(signal.SIGTERM, 1)
        assert importlib.import_module("imported_meanwhile").REQUESTED == []
        until = time.monotonic() + 60
        while not requested and time.monotonic() < until:
            time.sleep(0.001)
        assert requested == [(signal.SIGTERM, 1)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        sys.modules.pop("imported_meanwhile", None)


def test_a_child_ends_by_sigterm_also_if_it_is_started_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second child is forked when the hook has a handler already, which kills the child of the hook, not itself."""
    handlers: list[object] = []

    class LateCall:
        def __init__(self, work: Any) -> None:
            self.result = lambda _: work()

    def prepare(*_: object) -> bytes:
        handlers.append(signal.getsignal(signal.SIGTERM))
        return pack(b"answer", 0.0)

    for name, value in {"WatchedCall": LateCall, "_prepare_in_child": prepare, "_read_stdin": lambda _: b"A = 1"}.items():
        monkeypatch.setattr(main, name, value)
    monkeypatch.setattr(main, "_end_with_parent", lambda *_: None)
    monkeypatch.setenv(pins.STARTER_VARIABLE, "1")
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main._prepare(None, 0.0, 1.0)[0] == b"answer"  # type: ignore[arg-type]  # no setting is read
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handlers == [signal.SIG_DFL]
