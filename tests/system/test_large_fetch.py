"""A large SIF: what a download takes of memory does not depend on it."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.execution_point import sif_content

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
SMALL, LARGE = 10_000_000, 400_000_000  # bytes
MOST, MORE = 48, 6  # MiB: of the process, and of the large one beyond the small one
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from publisher.resolver.fetch import fetch
from publisher.resolver.manifest import Sif
from publisher.resolver.sources import source
_, _, url, sha256, size, part = sys.argv
fetch([source(url)], Sif("a.sif", sha256, int(size)), part)
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
