"""Runs the command line ``publisher`` without waiting for its imports: a process that has them forks a child for each call.

A child has its own standard output and error, environment and working directory, waits for its threads and calls its exit
functions like any other process, and has no thread or open connection from before. That ``python -m publisher`` starts is for
test_cli.py to show.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAX_REQUEST = 100_000  # bytes, of a single message
_REPLY = 20  # bytes
_ENDED: list[SystemExit] = []


def run(arguments: Sequence[str], env: Mapping[str, str], where: Path, deadline: float) -> subprocess.CompletedProcess[str]:
    """Run ``publisher`` with arguments, in a directory; return its exit status, output and error output.

    Raises:
        subprocess.TimeoutExpired: it has not ended after ``deadline`` seconds, and was killed.
    """
    address = _server(str(Path("/proc/self/ns/mnt").readlink()))
    with (
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as error,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked,
    ):
        asked.settimeout(deadline)
        asked.connect(address)
        request = json.dumps({"arguments": list(arguments), "env": dict(env), "where": str(where)}).encode()
        socket.send_fds(asked, [request], [output.fileno(), error.fileno()])
        process = int(asked.recv(_REPLY))
        try:
            status = int(asked.recv(_REPLY))
        except TimeoutError:
            os.kill(process, signal.SIGKILL)
            raise subprocess.TimeoutExpired(["publisher", *arguments], deadline) from None
        texts = []
        for stream in (output, error):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return subprocess.CompletedProcess(["publisher", *arguments], status, *texts)


@cache
def _server(namespace: str) -> str:
    """Start the process that forks, one for each namespace of mounts; return its socket's abstract address."""
    address = f"\0publisher-test-{os.getpid()}-{namespace}"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(address)
    listening.listen(64)
    server = subprocess.Popen(
        [sys.executable, "-m", __name__, str(listening.fileno())],
        pass_fds=[listening.fileno()],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    listening.close()
    atexit.register(server.kill)
    return address


def _serve(listening: socket.socket) -> None:
    if "coverage" not in sys.modules:  # which writes its counts after all others
        atexit.register(_leave)  # as the first, so that it is called last
    _import_all()
    gc.freeze()  # a collection in a child would copy all memory
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        asked, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(asked)
            return
        asked.close()


def _import_all() -> None:
    import publisher  # noqa: PLC0415 - not in the process of the tests, which only asks

    for module in pkgutil.walk_packages(publisher.__path__, "publisher."):
        if not module.name.endswith("__main__"):
            __import__(module.name)


def _answer(asked: socket.socket) -> None:
    """Run the command of a request in a child, and reply with the child's process id and, later, its exit status."""
    content, descriptors, _, _ = socket.recv_fds(asked, _MAX_REQUEST, 2)
    begins, begin = os.pipe()
    child = os.fork()
    if child == 0:
        asked.close()
        os.close(begin)
        os.read(begins, 1)  # until the test knows this process's id
        os.close(begins)
        _become(json.loads(content), descriptors)
    os.close(begins)
    asked.send(str(child).encode())
    os.close(begin)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    asked.send(str(status).encode())
    os._exit(0)


def _become(request: Mapping[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Be the command; what it raises ends this process as it would end any other."""
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["where"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["publisher", *request["arguments"]]
    from publisher.cli.main import main  # noqa: PLC0415 - imported before

    try:
        main()
    except SystemExit as ended:
        _ENDED.append(ended)
        raise
    sys.exit(0)


def _leave() -> None:
    """End a command that has said its status, after its threads and exit functions; taking all modules apart takes 0.2 s."""
    for ended in _ENDED:
        if isinstance(ended.code, int):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
