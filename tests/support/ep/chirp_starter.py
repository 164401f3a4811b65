"""The starter's side of Chirp: it accepts lines on a loopback port, answers each one and records them."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Starter:
    """A starter that serves one connection.

    Attributes:
        lines: the lines that it received. config: path of the file with its host, port and cookie.
    """

    def __init__(self, directory: Path, answers: Sequence[str]) -> None:
        self.lines: list[str] = []
        self.config = directory / ".chirp.config"
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.config.write_text(f"127.0.0.1 {self._listener.getsockname()[1]} abc\n")
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as stream:
            for answer in self._answers:
                self.lines.append(stream.readline().decode().rstrip("\n"))
                connection.sendall(f"{answer}\n".encode())

    @contextlib.contextmanager
    def serving(self) -> Iterator[Starter]:
        self._thread.start()
        try:
            yield self
        finally:
            self._thread.join()
            self._listener.close()
