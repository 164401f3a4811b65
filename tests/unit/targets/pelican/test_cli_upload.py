"""Uploads by the ``pelican`` command that are cancelled."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, NamedTuple

import pytest

from publisher.targets.pelican.cli_upload import PelicanUpload
from publisher.targets.pelican.content import from_file
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.pelican.tokens import NoTokens
from publisher.targets.pelican.transport import OriginTimeouts

if TYPE_CHECKING:
    from pathlib import Path

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class Somewhere(NamedTuple):
    base: str = "/"

    async def locate(self) -> Somewhere:
        return self


async def test_an_upload_that_is_cancelled_ends_the_command_first(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    program = tmp_path / "pelican"
    program.write_text(f"#!/bin/sh\necho $$ >{told}\nexec sleep 600\n")
    program.chmod(0o755)
    source = tmp_path / "sif"
    source.touch()
    pelican = PelicanUpload(
        OriginAddress("federation.example", "/prefix", direct=False),
        Somewhere(),  # type: ignore[arg-type]  # all that is asked of an endpoint here
        NoTokens(),
        OriginTimeouts(),
        None,
        program=str(program),
    )
    carrying = asyncio.ensure_future(pelican.send(None, "sif/x", from_file(source, EMPTY, 0)))  # type: ignore[arg-type]  # not used
    child = int(await asyncio.to_thread(told.read_text))
    carrying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await carrying
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
