"""A pull request that proposes images of registries which only the publisher host can reach, and reads what the check says."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from publisher.cli.main import publisher
from publisher.contract.reference import Reference
from publisher.errors import UnavailableError
from publisher.net.retry import RetryPolicy
from publisher.registry.client import RegistryClient
from publisher.registry.transport import RegistryTimeouts
from tests.support.loopback import LOOPBACK
from tests.support.registries.scripted_http import ScriptedServer, certificate, hangs, says

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CLOSED, PLAIN, UNTRUSTED, GARBAGE, SILENT = "closed", "plain http", "an untrusted certificate", "another protocol", "silent"


@contextlib.asynccontextmanager
async def port_of(kind: str, root: Path) -> AsyncIterator[int]:
    """A port of this host in some state."""

    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        with contextlib.closing(writer):
            await writer.drain()

    async with contextlib.AsyncExitStack() as stack:
        if kind == CLOSED:
            bound = stack.enter_context(socket.socket())
            bound.bind(("127.0.0.1", 0))  # and does not listen
            yield bound.getsockname()[1]
        elif kind == GARBAGE:
            server = await stack.enter_async_context(await asyncio.start_server(babble, "127.0.0.1", 0))
            yield server.sockets[0].getsockname()[1]
        else:
            tls = certificate(root, "localhost")[1] if kind == UNTRUSTED else None
            routes = {"GET /v2/": [hangs if kind == SILENT else says()]}
            served = await stack.enter_async_context(ScriptedServer(routes, tls=tls))
            yield int(served.address.rpartition(":")[2])


async def said_about(port: int, *, discreet: bool = True) -> str:
    """Return the error about a proposed image of that port, with the port's number left out."""

    async def no_wait(_: float) -> None:
        await asyncio.sleep(0)

    timeouts = RegistryTimeouts(connect=5, idle=1, small=1)
    retry = RetryPolicy(attempts=2, sleep=no_wait)
    async with RegistryClient(networks=LOOPBACK, discreet=discreet, retry=retry, timeouts=timeouts) as client:
        with pytest.raises(UnavailableError) as failure:
            await client.head(Reference(f"127.0.0.1:{port}", "a/b", "1"))
    return str(failure.value).replace(str(port), "PORT")


@pytest.mark.parametrize("kind", [CLOSED, PLAIN, UNTRUSTED, GARBAGE, SILENT])
async def test_an_error_does_not_tell_what_a_port_is(kind: str, tmp_path: Path) -> None:
    async with port_of(kind, tmp_path) as port:
        said = await said_about(port)
    text = "127.0.0.1:PORT/a/b:1: 127.0.0.1:PORT gave no usable answer, after 2 attempts"
    assert said == f"{text} (nothing was changed; the next run tries again)"


async def test_an_operator_is_told_what_happened(tmp_path: Path) -> None:
    async with port_of(CLOSED, tmp_path) as port:
        assert "Connection refused" in await said_about(port, discreet=False)


@pytest.mark.parametrize("networks", [[], ["--allowed-networks=127.0.0.0/8"]], ids=["refused", "allowed"])
def test_the_check_says_the_same_of_an_open_and_of_a_closed_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, networks: list[str]
) -> None:
    monkeypatch.setattr(RetryPolicy, "_delay", lambda *_: 0)
    images = tmp_path / "images.yaml"
    with socket.create_server(("127.0.0.1", 0)) as opened, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        opened.settimeout(0)
        ports = [bound.getsockname()[1] for bound in (opened, closed)]
        said = []
        for port in ports:
            entry = f'{{"image": "127.0.0.1:{port}/a/b:1"}}'
            images.write_text(f'{{"version": 1, "groups": [{{"title": "t", "images": [{entry}]}}]}}')
            flags = [f"--images={images}", f"--state={tmp_path / 'state'}", "--request-deadline=0.25", *networks]
            done = CliRunner().invoke(publisher, ["check", "--all", *flags])
            said.append(re.sub(rf"\b{port}\b", "PORT", f"{done.exit_code} {done.stdout} {done.stderr}"))
        if not networks:
            assert "has no public address" in said[0]
            with pytest.raises(BlockingIOError):
                opened.accept()
    assert said[0] == said[1]
