from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from publisher.resolver import chirp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIGEST = "sha256:" + "0" * 64


class Starter:
    """HTCondor's side: takes lines, answers each; ``config`` is the file that says where."""

    def __init__(self, directory: Path, answers: list[str]) -> None:
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


def test_the_starter_is_told_each_attribute_after_the_cookie(tmp_path: Path) -> None:
    with Starter(tmp_path, ["0", "0", "0"]).serving() as starter:
        chirp.tell(str(starter.config), {"ImageDigest": DIGEST, "Odd": 'two "words"', "ImageForm": "sif"})
    assert starter.lines == [
        "cookie abc",
        f'set_job_attr_delayed ChirpImageDigest "{DIGEST}"',
        'set_job_attr_delayed ChirpImageForm "sif"',
    ]


@pytest.mark.parametrize("answers", [["-1", "-1"], ["0", "-8"], ["0"], []])
def test_a_starter_that_refuses_or_breaks_off_is_said(tmp_path: Path, answers: list[str]) -> None:
    with Starter(tmp_path, answers).serving() as starter, pytest.raises(OSError, match=r"the starter answers|reset"):
        chirp.tell(str(starter.config), {"ImageDigest": DIGEST})


def test_nobody_at_the_port_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "config").write_text(f"127.0.0.1 {port} abc")
    with pytest.raises(ConnectionRefusedError):
        chirp.tell(str(tmp_path / "config"), {})


@pytest.mark.parametrize("content", ["", "127.0.0.1 abc", "127.0.0.1 port abc", "é"])
def test_a_file_that_is_something_else_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "config").write_text(content)
    with pytest.raises(ValueError, match=r"."):
        chirp.tell(str(tmp_path / "config"), {})
