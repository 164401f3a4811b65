"""What a download takes of memory and of the network does not grow with the SIF's size or the number of jobs."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import ROOT
from tests.support.ep.execution_point import REPOSITORY, ExecutionPoint, record, sif_content, version
from tests.support.osdf.faulty_cache import FaultyServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

JOBS = 200
START_ALL = f'number=0; while [ $number -lt {JOBS} ]; do "$@" > $number & number=$((number + 1)); done; echo; wait'
SMALL, LARGE = 10_000_000, 400_000_000  # bytes
MOST, MORE = 48, 6  # MiB: of the process, and of the large one beyond the small one
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from publisher.resolver.transfer.fetch import fetch
from publisher.contract.records import Sif
from publisher.resolver.transfer.open_source import open_source
_, _, url, sha256, size, part = sys.argv
fetch([open_source(url)], Sif("a.sif", sha256, int(size)), part)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@contextmanager
def served(path: Path) -> Iterator[str]:
    """The URL of a server that sends a file to the first who asks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, path.open("rb") as file:
                connection.recv(1 << 16)
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {path.stat().st_size}\r\n\r\n".encode())
                connection.sendfile(file)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def memory_of_fetching(size: int, where: Path) -> float:
    """The most that a process had, in MiB, which fetched so many bytes."""
    path, part = where / "sif", where / "part"
    path.write_bytes(sif_content("large"))
    os.truncate(path, size)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    with served(path) as url:
        command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(ROOT), url, sha256, str(size), str(part)]
        kibibytes = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert part.stat().st_size == size
    part.unlink()
    return kibibytes / 1024


def test_a_large_sif_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    small, large = (memory_of_fetching(size, tmp_path) for size in (SMALL, LARGE))
    assert large < MOST
    assert large - small < MORE


def test_two_hundred_jobs_at_once_on_a_host_without_anything_are_one_of_each_request(tmp_path: Path) -> None:
    """No job can end before all have begun: the SIF comes only then."""
    ep = ExecutionPoint(tmp_path)
    sif = ep.store(sif_content("a/b:1", 5_000_000))
    ep.publish(record("a/b:1", amd64=[version("a/b:1", sif=sif)]), now=int(time.time()))
    files = {f"/{path.relative_to(ep.origin)}": path.read_bytes() for path in ep.origin.rglob("*") if path.is_file()}
    with FaultyServer(files) as server:
        server.held = "/sif/"
        command = [
            sys.executable,
            "-S",
            "-m",
            "publisher.resolver",
            "resolve",
            "a/b:1",
            "--json",
            "--repository-name",
            REPOSITORY,
        ]
        command += ["--origin", server.url, "--cache", str(ep.cache), "--public-key", str(ep.keys), "--arch", "amd64"]
        outputs = tmp_path / "outputs"
        outputs.mkdir()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            ["sh", "-c", START_ALL, "sh", *command], stdout=subprocess.PIPE, cwd=outputs, env=environment
        ) as jobs:  # its forks cost less than this process's, which has the server
            assert jobs.stdout is not None
            jobs.stdout.readline()
            server.released.set()
        answers = [json.loads((outputs / str(number)).read_text()) for number in range(JOBS)]
    assert {answer["path"] for answer in answers} == {str(ep.cache / "sif" / sif.sha256[:2] / f"{sif.sha256}.sif")}
    assert sum(answer["sif_source"] is not None for answer in answers) == 1
    index, shard, whole = sorted(asked.path for asked in server.asked)
    assert (index, whole) == ("/manifest/index.json", f"/{sif.path}")
    assert shard.startswith("/manifest/shards/")
