"""The pipe to a running ingest, with a thread in the tool's place."""

from __future__ import annotations

import os
import threading

import pytest

from publisher.targets.repositories.cvmfs.tool_pipe import ToolEndedError, ToolPipe

LARGE = os.urandom(5 << 20)  # more than a pipe holds


def test_what_is_written_is_read_and_ends() -> None:
    pipe = ToolPipe(lambda: False)
    read: list[bytes] = []

    def tool() -> None:
        with os.fdopen(pipe.read_end, "rb") as stream:
            read.append(stream.read())

    thread = threading.Thread(target=tool)
    thread.start()
    pipe.write(b"head")
    pipe.write(LARGE)
    pipe.wait_until_read()
    pipe.close()
    thread.join()
    assert read == [b"head" + LARGE]


def test_a_tool_that_has_ended_is_noticed_although_its_end_of_the_pipe_is_open() -> None:
    pipe = ToolPipe(lambda: True)
    pipe.write(b"fits")
    with pytest.raises(ToolEndedError):
        pipe.wait_until_read()
    with pytest.raises(ToolEndedError):
        pipe.write(LARGE)
    pipe.close_read_end()
    pipe.close()


def test_a_pipe_that_nobody_can_read_any_more_is_the_end_of_the_tool() -> None:
    pipe = ToolPipe(lambda: False)
    pipe.close_read_end()
    with pytest.raises(ToolEndedError):
        pipe.write(b"head")
    pipe.close()
    pipe.close()
