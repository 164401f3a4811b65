from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.hook import chirp
from tests.support.ep.chirp_starter import Starter

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "sha256:" + "0" * 64


def test_the_starter_is_told_each_attribute_after_the_cookie(tmp_path: Path) -> None:
    with Starter(tmp_path, ["0", "0", "0"]).serving() as starter:
        chirp.set_attributes(str(starter.config), {"ImageDigest": DIGEST, "Odd": 'two "words"', "ImageForm": "sif"})
    assert starter.lines == [
        "cookie abc",
        f'set_job_attr_delayed ChirpImageDigest "{DIGEST}"',
        'set_job_attr_delayed ChirpImageForm "sif"',
    ]


@pytest.mark.parametrize("answers", [["-1", "-1"], ["0", "-8"], ["0"], []])
def test_a_starter_that_refuses_or_breaks_off_is_said(tmp_path: Path, answers: list[str]) -> None:
    with Starter(tmp_path, answers).serving() as starter, pytest.raises(OSError, match=r"the starter answers|reset"):
        chirp.set_attributes(str(starter.config), {"ImageDigest": DIGEST})


def test_nobody_at_the_port_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "config").write_text(f"127.0.0.1 {port} abc")
    with pytest.raises(ConnectionRefusedError):
        chirp.set_attributes(str(tmp_path / "config"), {})


def test_a_starter_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (tmp_path / "config").write_text(f"127.0.0.1 {silent.getsockname()[1]} abc")
        with pytest.raises(socket.timeout):
            chirp.set_attributes(str(tmp_path / "config"), {})


@pytest.mark.parametrize("content", ["", "127.0.0.1 abc", "127.0.0.1 port abc", "é"])
def test_a_file_that_is_something_else_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "config").write_text(content)
    with pytest.raises(ValueError, match=r"."):
        chirp.set_attributes(str(tmp_path / "config"), {})
