"""Attacker: an image. Its ``/bin/sh`` is what the test run starts; it says at the end what it could do, and fails."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.system import log as resolver_log
from publisher.system.shield import Shield
from tests.support.images.built_layers import request
from tests.support.images.layers import directory, file, tar
from tests.support.images.runnable import runnable
from tests.support.publisher.host import Host
from tests.support.publisher.local_builder import build
from tests.support.registries.registry import push_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.publisher.host import Report
    from tests.support.registries.registry import RegistryServer

pytestmark = pytest.mark.system

FORK_BOMB = """
n=0
while [ $n -lt 400 ]; do sleep 60 & n=$((n+1)); done
echo "it started $n processes" >&2
"""
MEMORY = """
dd if=/dev/zero of=/dev/null bs=512M count=1 && echo "it took half a gigabyte" >&2
"""
FILE_SIZE = """
cat /dev/zero > /tmp/large
echo "cat ended with status $?" >&2
"""
CPU = """
echo "it may burn $(ulimit -H -t) s" >&2
"""
KEY = """
[ -e {key} ] && echo "it sees the key" >&2 && exit 1
while read -r name value rest; do
    case $name in Uid: | Seccomp: | NoNewPrivs:) said="$said $name $value" ;; esac
done < /proc/self/status
unshare --user true 2> /dev/null && said="$said namespace"
echo "it sees no key;$said" >&2
"""


ESCAPES = """
printf 'it hides \\033[2J\\033]0;owned\\007 \\302\\233 31m and \\342\\200\\256 turns\\r' >&2
"""


SPY = """#!/bin/sh
reads=cannot-read
grep -q . {key} 2> /dev/null && reads=reads
case "$*" in *-version*) ;; *) echo "{name} $reads" >> {log} ;; esac
exec {program} "$@"
"""
"""A program of a build that an image has taken over: it notes whether it could read the signing key."""


class Run:
    """One sync of all these images, with small limits."""

    def __init__(self, where: Path, registry: RegistryServer) -> None:
        self.host = Host(where, registry)
        attacks = {"fork": FORK_BOMB, "memory": MEMORY, "file": FILE_SIZE, "cpu": CPU, "key": KEY.format(key=self.host.key)}
        attacks["escapes"] = ESCAPES
        for name, script in attacks.items():
            shell = file("bin/sh", f"#!/bin/dash\nPATH=/bin\n{script}\nexit 1\n".encode(), mode=0o755)
            push_image(registry.address, f"attack/{name}", "1", [tar(runnable("/usr/bin/unshare", "/usr/bin/dd")), tar([shell])])
        self.host.images(*(f"attack/{name}:1" for name in attacks))
        limits = ["--test-memory=384 MiB", "--test-deadline=100 s"]  # each thread of Apptainer has a stack of 8 MiB
        self.report: Report = self.host.sync(*limits, check=False)

    def said(self, name: str) -> str:
        assert self.report.results[f"attack/{name}:1"] == "failed"
        return self.report.reasons[f"attack/{name}:1"]


@pytest.fixture(scope="module")
def run(registry: RegistryServer) -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="publisher-test-") as made:
        Path(made).chmod(0o755)
        yield Run(Path(made), registry)


def test_a_fork_bomb_gets_no_more_processes_than_the_limit(run: Run) -> None:
    assert "Cannot fork" in run.said("fork")


def test_memory_ends_at_the_limit(run: Run) -> None:
    assert "memory exhausted" in run.said("memory")


def test_a_file_grows_no_larger_than_the_limit(run: Run) -> None:
    assert "cat ended with status 153" in run.said("file"), "SIGXFSZ"


def test_cpu_time_has_a_limit(run: Run) -> None:
    assert "it may burn 25 s" in run.said("cpu")


def test_the_signing_key_is_out_of_sight_and_the_image_has_no_privileges(run: Run) -> None:
    said = run.said("key")
    assert "it sees no key" in said
    assert "Uid: 0 " not in said
    assert "NoNewPrivs: 1" in said
    assert "Seccomp: 2" in said
    assert "namespace" not in said, "the kernel's code for them has been a way out"


def test_the_reason_says_what_the_limits_are(run: Run) -> None:
    assert "a test run may use 384 MiB of memory, 128 processes, files of 32 MiB and 25 s of CPU time" in run.said("memory")


def test_no_program_that_handles_strangers_bytes_can_read_the_signing_key(
    host: Host, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: accounts of a build; only root changes to another")
    spies, log = host.where / "spies", host.where / "log"
    spies.mkdir()
    log.touch()
    log.chmod(0o666)
    for name in ("mksquashfs", "unsquashfs", "apptainer"):
        (spies / name).write_text(SPY.format(key=host.key, name=name, log=log, program=shutil.which(name)))
        (spies / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{spies}:{os.environ['PATH']}")
    push_image(registry.address, "attack/key-of-the-build", "1", [tar(runnable())])
    host.images("attack/key-of-the-build:1")
    host.run("sync", "--compression=gzip", check=True)  # zstd is compressed in this process; docs/threats.md
    noted = log.read_text().split("\n")
    assert {line for line in noted if line} == {f"{name} cannot-read" for name in ("mksquashfs", "unsquashfs", "apptainer")}
    assert host.sif("attack/key-of-the-build:1").stat().st_uid == 0


def is_plain(text: str) -> bool:
    """Return whether a terminal shows every character of a text and obeys none."""
    return all(char.isprintable() or char == "\n" for char in text)


def test_escape_sequences_of_an_image_reach_neither_terminal_nor_log(run: Run) -> None:
    assert r"it hides \x1b[2J\x1b]0;owned\x07 \x9b 31m and \x202e turns" in run.said("escapes")
    assert is_plain(run.report.stderr)
    done = run.host.run("sync", "attack/escapes:1", "-vv")
    assert "it hides" in done.stdout
    assert "it hides" in done.stderr
    assert is_plain(done.stdout)
    assert is_plain(done.stderr)


@pytest.mark.parametrize("configured", [False, True])
def test_escape_sequences_reach_no_terminal_of_an_execution_point(capsys: pytest.CaptureFixture[str], configured: bool) -> None:
    if configured:
        resolver_log.configure(resolver_log.NORMAL)
    try:
        resolver_log.warning("Apptainer says \x1b[2J\x9b31m \u202e")
        resolver_log.error("Apptainer says \x1b[2J\rimage-resolver: all is well")
    finally:
        resolver_log.reset()
    said = capsys.readouterr().err
    assert r"says \x1b[2J\x9b31m \x202e" in said
    assert is_plain(said)


def test_the_code_of_an_image_cannot_change_its_own_sandbox(tmp_path: Path) -> None:
    """World-writable directories would let it, and what it left there would be published."""
    script = b"#!/bin/dash\necho x >/opt/open/left\nexit 0\n"
    shell = [entry for entry in runnable() if entry.name != "bin/sh"]
    layers = [tar([*shell, file("bin/sh", script, mode=0o755), directory("opt/open", 0o777)])]
    source = build(dataclasses.replace(request(layers, tmp_path / "layers"), sif=False), tmp_path).source
    assert source is not None
    tmp_path.chmod(0o700)  # as a staging directory is
    source.unpack(tmp_path / "tree", deadline=60, shield=Shield())
    assert source.check(tmp_path / "tree") == ("ran", "")
    assert list((tmp_path / "tree/opt/open").iterdir()) == []
