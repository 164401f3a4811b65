"""A network namespace of its own for servers that listen everywhere, with its ports on our loopback.

``Island`` is this side. The other is this file run as a program: it holds our listening sockets, steps into a new namespace,
starts there what it is told to, and hands on each connection to the same port in there. So a port is free on both sides, and a
URL means the same inside and outside. It ends, with all that it started, when it is told to or our end of its standard input is
closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

HOST = "localhost"
_READY = 20.0  # seconds for a server to listen
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PIECE = 1 << 20
_END = "\n"
"""The last order: a child that was forked meanwhile may hold our end of the pipe as well."""


class Island:
    """A context manager: a network namespace that has nothing but loopback. As an ordinary user, in a user namespace.

    Args:
        ports: how many ports of it are reached from outside.

    Attributes:
        ports: their numbers.
    """

    def __init__(self, ports: int) -> None:
        self._count = ports

    def __enter__(self) -> Self:
        listeners = [socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(self._count)]
        self.ports = [listener.getsockname()[1] for listener in listeners]
        numbers = [str(listener.fileno()) for listener in listeners]
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[listener.fileno() for listener in listeners],
            text=True,
        )
        for listener in listeners:
            listener.close()
        self._ask({})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended
            self._process.stdin.write(_END)
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def start(self, argv: Sequence[str], *, port: int, env: Mapping[str, str], where: Path, account: str | None = None) -> int:
        """Start a server, wait until it listens at ``port``, and return its process id; ``account`` is its user (root only)."""
        order = {"argv": list(argv), "port": port, "env": dict(env), "where": str(where), "account": account}
        number: int = self._ask({"start": order})["pid"]
        return number

    def stop(self, pid: int) -> None:
        """Kill a server that was started."""
        self._ask({"stop": pid})

    def _ask(self, order: dict[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"failed": "the island is gone"}')
        assert "failed" not in answer, answer["failed"]
        return answer


def _main() -> None:
    listeners = [socket.socket(fileno=int(number)) for number in sys.argv[1:]]
    _step_in()
    for listener in listeners:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    children: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for line in iter(sys.stdin.readline, ""):
            if line == _END:
                break
            try:
                answer = _carry_out(json.loads(line), children)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test has to see it
                answer = {"failed": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)  # noqa: T201 - a program
    finally:
        for child in children.values():
            child.kill()
            child.wait()


def _step_in() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    flags = _CLONE_NEWNET if uid == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _carry_out(order: dict[str, Any], children: dict[int, subprocess.Popen[bytes]]) -> dict[str, object]:
    if "stop" in order:
        child = children.pop(order["stop"])
        child.kill()
        child.wait()
    elif "start" in order:
        child = _start(**order["start"])
        children[child.pid] = child
        return {"pid": child.pid}
    return {}


def _start(argv: list[str], port: int, env: dict[str, str], where: str, account: str | None) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None)
    child = subprocess.Popen(
        argv,
        env=env,
        cwd=where,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=account,
        group=account,
        extra_groups=None if account is None else [],
        preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - of the one thread that starts
    )
    deadline = time.monotonic() + _READY
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return child
        if child.poll() is not None or time.monotonic() > deadline:
            child.kill()
            raise RuntimeError(f"{argv[0]} does not listen at {port}; its log is below {where}")
        time.sleep(0.02)


def _serve(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    while True:
        outside, _ = listener.accept()
        try:
            inside = socket.create_connection(("127.0.0.1", port))
        except OSError:
            outside.close()  # nobody is there
            continue
        for source, sink in ((outside, inside), (inside, outside)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_hand_on, args=(source, sink), daemon=True).start()


def _hand_on(source: socket.socket, sink: socket.socket) -> None:
    """Forward all bytes in the kernel, and then the end of the stream."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PIECE)
    try:
        while moved := os.splice(source.fileno(), into, _PIECE):
            while moved:
                moved -= os.splice(out, sink.fileno(), moved)
    except OSError:
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RD)
    finally:
        os.close(out)
        os.close(into)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    _main()
