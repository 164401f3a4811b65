"""A real origin for tests that want one: XRootD, kept running for the whole session, with a prefix for each test's directory."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import signal
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from publisher.net.retry import RetryPolicy
from publisher.state.signing import read_private_key
from publisher.targets.origins.pelican import PelicanOrigin, UploadOptions
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.pelican.jwt import MintedTokens, TokenClaims
from tests.support.loopback import LOOPBACK
from tests.support.machine import child_process
from tests.support.osdf.federation import Director
from tests.support.osdf.xrootd import NAMESPACE, Servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

RETRIES = RetryPolicy(attempts=3, first_delay=0.01)
_STARTING = threading.Lock()


class Running(NamedTuple):
    """The running servers; ``director`` is the director's ``host:port``, ``key`` the issuer's private key."""

    servers: Servers
    director: str
    key: Path


_RUNNING: list[Running] = []


def running(env: Mapping[str, str] | None = None) -> Running:
    """Return an origin with a director, which run until this process ends; all threads share them.

    The first caller's ``env`` has further variables of the origin's server.
    """
    with _STARTING:
        if not _RUNNING:
            _RUNNING.append(_start(env or {}))
        return _RUNNING[0]


@contextlib.contextmanager
def _director(servers: Servers) -> Iterator[str]:
    """Run a director in its own process, because children forked while a thread uses TLS may hang; yield its ``host:port``."""
    (alive, held), (told, tell) = os.pipe(), os.pipe()

    def serve() -> None:
        os.close(held)
        with Director(servers.tls, NAMESPACE, servers.origin, issuer=servers.issuer.url) as director:
            os.write(tell, director.host.encode())
            os.close(tell)
            os.read(alive, 1)  # until nobody is there who could write

    child = child_process.start(serve)
    for descriptor in (alive, tell):
        os.close(descriptor)
    host = os.read(told, 100).decode()
    os.close(told)
    try:
        yield host
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(held)
        child_process.end(child)


def _start(env: Mapping[str, str]) -> Running:
    stack = ExitStack()
    servers = stack.enter_context(Servers(env=env))
    host = stack.enter_context(_director(servers))
    atexit.register(stack.close)
    return Running(servers, host, servers.issuer.save(servers.where / "issuer.pem"))


def minted(there: Running, base: str | None = None) -> MintedTokens:
    """Return a source of tokens of the origin's issuer, made as the publisher makes them."""
    return MintedTokens(
        read_private_key(there.key), there.servers.issuer.keyid, TokenClaims(there.servers.issuer.url, base=base), time.time
    )


def prefix(place: Path) -> str:
    """Return the prefix that belongs to a test's directory."""
    return f"{NAMESPACE}/{hashlib.sha256(str(place).encode()).hexdigest()[:16]}"


def directed(place: Path) -> PelicanOrigin:
    """Return the origin that the director names."""
    there = running()
    options = UploadOptions(networks=LOOPBACK, tokens=minted(there), ca_file=there.servers.authority, retries=RETRIES)
    return PelicanOrigin(OriginAddress(there.director, prefix(place), direct=False), options)


def direct(place: Path) -> PelicanOrigin:
    """Return the origin, addressed directly."""
    there = running()
    options = UploadOptions(networks=LOOPBACK, tokens=minted(there, NAMESPACE), ca_file=there.servers.authority, retries=RETRIES)
    return PelicanOrigin(OriginAddress(there.servers.origin.removeprefix("https://"), prefix(place), direct=True), options)
