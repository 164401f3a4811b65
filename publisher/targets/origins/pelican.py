"""An origin of a Pelican federation such as the OSDF, or a server that is used like one.

This module decides what a name means and what is never done to it; :mod:`publisher.targets.pelican` sends the requests.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from publisher.contract.units import format_size
from publisher.errors import OriginError
from publisher.net.addresses import AddressPolicy
from publisher.net.proxies import Proxies
from publisher.net.retry import RetryPolicy
from publisher.system import safepath
from publisher.targets.origins.base import Origin
from publisher.targets.origins.job_uploads import JobUploads
from publisher.targets.pelican.cli_upload import PelicanUpload
from publisher.targets.pelican.content import from_bytes, from_file
from publisher.targets.pelican.federation.endpoint import DirectedEndpoint, DirectEndpoint
from publisher.targets.pelican.loop import OriginLoop
from publisher.targets.pelican.tokens import NoTokens
from publisher.targets.pelican.transport import OriginTimeouts, OriginTransport
from publisher.targets.pelican.upload import INCOMING, Uploader, WebDavUpload
from publisher.targets.pelican.webdav import WebDavClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator
    from pathlib import Path

    from publisher.chunks.reader import ByteReader
    from publisher.net.addresses import Network
    from publisher.targets.pelican.content import UploadContent
    from publisher.targets.pelican.federation.address import OriginAddress
    from publisher.targets.pelican.propfind import DavEntry
    from publisher.targets.pelican.tokens import TokenSource

T = TypeVar("T")

_log = logging.getLogger(__name__)
_SAFE_PART = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
"""Characters that XRootD does not interpret in a path; it decodes a %3F before it looks for a query."""
_MAX_READ = 64 << 20  # bytes of an object that is read into memory


@dataclass(frozen=True)
class UploadOptions:
    """How an origin is reached and objects are uploaded.

    Attributes:
        tokens: the tokens of requests.
        removal_tokens: the tokens of requests that remove objects; ``tokens`` if None.
        allowed_hosts: ``host:port`` of the origins that a director may name; any if empty.
        ca_file: PEM file of a private certificate authority, None for none.
        networks: networks to which requests may be sent although their addresses are not public; the host of the origin's
            address and ``allowed_hosts`` may have any address.
        timeouts: how long requests may take.
        retries: how often failures that may pass are retried.
        proxies: the proxies in the environment: scheme -> URL.
        checksums: whether the origin is asked for its own checksums too.
        pelican_program: the ``pelican`` command that uploads files; this program uploads them itself if None.
    """

    tokens: TokenSource = field(default_factory=NoTokens)
    removal_tokens: TokenSource | None = None
    allowed_hosts: frozenset[str] = frozenset()
    ca_file: Path | None = None
    networks: Collection[Network] = ()
    timeouts: OriginTimeouts = field(default_factory=OriginTimeouts)
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    proxies: dict[str, str] = field(default_factory=dict, repr=False)
    checksums: bool = False
    pelican_program: str | None = None


class _UploadSlots:
    """Lets this process upload one object only once at a time; the other threads then find it stored.

    Between processes XRootD decides, and not reliably: it checks whether a name is taken before it renames, so that of two
    uploads of the same bytes both may be told that they stored the object.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._in_use: set[str] = set()

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Wait until no other thread uploads ``name``, and hold its slot for the block."""
        with self._changed:
            if name in self._in_use:
                _log.info("waiting for another thread's upload of %s", name)
            self._changed.wait_for(lambda: name not in self._in_use)
            self._in_use.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._in_use.discard(name)
                self._changed.notify_all()


_SLOTS = _UploadSlots()


class PelicanOrigin(Origin):
    """The origin at ``address``; no request is sent before its first use.

    Args:
        address: the address of the origin.
        options: how it is reached.
        clock: seconds since the epoch.
    """

    def __init__(self, address: OriginAddress, options: UploadOptions, clock: Callable[[], float] = time.time) -> None:
        self.address = address
        self._clock = clock
        self._retries = options.retries
        policy = AddressPolicy({address.host, *options.allowed_hosts}, options.networks)
        transport = OriginTransport(options.timeouts, Proxies(options.proxies), options.ca_file, policy)
        self._endpoint = (
            DirectEndpoint(address)
            if address.direct
            else DirectedEndpoint(transport, address, options.allowed_hosts, options.tokens)
        )
        self._client = WebDavClient(transport, self._endpoint, options.tokens, options.removal_tokens or options.tokens)
        method = (
            WebDavUpload()
            if options.pelican_program is None
            else PelicanUpload(
                address, self._endpoint, options.tokens, options.timeouts, options.ca_file, program=options.pelican_program
            )
        )
        self._uploader = Uploader(self._client, method, options.retries, checksums=options.checksums)
        self._loop = OriginLoop(transport)
        self._ca_file = options.ca_file

    def job_uploads(self, tokens: TokenSource) -> JobUploads:
        """Return the incoming area of build jobs, which upload with tokens of their own."""
        return JobUploads(
            self._endpoint,
            self._client,
            self._uploader,
            tokens,
            loop=self._loop,
            retries=self._retries,
            ca_file=self._ca_file,
        )

    def recover(self) -> list[str]:
        """See :meth:`Origin.recover`. Uploads of other hosts' runs are deleted when they are a day old."""
        swept = self._loop.run(self._uploader.sweep(self._clock()))
        return [f"swept a killed upload: {INCOMING}/{name} ({format_size(size)})" for name, size in swept]

    def put(self, name: str, source: Path, *, sha256: str, size: int) -> bool:
        """See :meth:`Origin.put`."""
        return self._put(name, from_file(source, sha256, size))

    def put_bytes(self, name: str, content: bytes) -> bool:
        """See :meth:`Origin.put_bytes`."""
        return self._put(name, from_bytes(name, content))

    def replace(self, name: str, content: bytes) -> None:
        """See :meth:`Origin.replace`."""
        self._loop.run(self._uploader.replace(_checked(name), from_bytes(name, content)))
        _log.info("origin %s: replaced %s (%d bytes)", self.address, name, len(content))

    def read(self, name: str) -> bytes | None:
        """See :meth:`Origin.read`."""
        return self._run(partial(self._client.read, _checked(name), _MAX_READ))

    def size(self, name: str) -> int | None:
        """See :meth:`Origin.size`."""
        entry = self._object(name)
        return None if entry is None else entry.size

    def modified(self, name: str) -> float | None:
        """See :meth:`Origin.modified`. The time is in whole seconds."""
        entry = self._object(name)
        return None if entry is None else entry.modified

    def sha256(self, name: str, reader: ByteReader | None = None) -> str | None:
        """See :meth:`Origin.sha256`."""
        entry = self._object(name)
        return None if entry is None else self._loop.run(self._client.sha256(name, entry.size, self._retries.run, reader))

    def names(self, prefix: str = "") -> Iterator[str]:
        """See :meth:`Origin.names`. Names that no publisher can have stored are left out."""
        directory = prefix.removesuffix("/") if prefix else ""
        return self._walk(_checked(directory) if prefix else "")

    def remove(self, name: str) -> None:
        """See :meth:`Origin.remove`."""
        if self._object(name) is not None:
            self._run(partial(self._client.delete, name))

    def _put(self, name: str, content: UploadContent) -> bool:
        with _SLOTS.hold(f"{self.address}/{_checked(name)}"):
            is_new = self._loop.run(self._uploader.put(name, content))
        if is_new:
            _log.info("origin %s: stored %s (%d bytes)", self.address, name, content.size)
        return is_new

    def _object(self, name: str) -> DavEntry | None:
        entry = self._run(partial(self._client.stat, _checked(name)))
        return None if entry is None or entry.is_directory else entry

    def _walk(self, directory: str) -> Iterator[str]:
        """Yield names in the order of ``str``: a directory sorts as its name with the ``/`` that follows it."""
        entries = self._run(partial(self._client.list_directory, directory))
        below = f"{directory}/" if directory else ""
        keys = [
            f"{last}/" if entry.is_directory else last
            for last, entry in entries.items()
            if _SAFE_PART.fullmatch(last) and (below or last != INCOMING)
        ]
        for key in sorted(keys):
            if key.endswith("/"):
                yield from self._walk(f"{below}{key[:-1]}")
            else:
                yield f"{below}{key}"

    def _run(self, request: Callable[[], Awaitable[T]]) -> T:
        """Send a request, with retries, and return its result."""
        return self._loop.run(self._retries.run(request))


def _checked(name: str) -> str:
    """Return the name if an object may have it.

    Raises:
        OriginError: the name is unsafe.
    """
    parts = safepath.split(name, OriginError)
    if parts[0] == INCOMING:
        raise OriginError(f"unsafe name {name!r}: {INCOMING} is reserved for the origin itself")
    if not all(map(_SAFE_PART.fullmatch, parts)):
        raise OriginError(f"unsafe name {name!r}: only letters, digits, dot, dash and underscore are safe in every server's URLs")
    return name
