"""An origin of a federation (OSDF and others that Pelican makes), or a server that is spoken to like one.

What a name means and what is never done to it is here; what is asked of the server, and how, in :mod:`publisher.federation`.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from publisher.errors import OriginError
from publisher.net.proxies import Proxies
from publisher.net.retry import RetryPolicy
from publisher.system import safepath
from publisher.targets.origins.base import Origin
from publisher.targets.pelican import content as contents
from publisher.targets.pelican.cli_upload import PelicanUpload
from publisher.targets.pelican.endpoint import DirectedEndpoint, DirectEndpoint
from publisher.targets.pelican.loop import OriginLoop
from publisher.targets.pelican.tokens import NoTokens
from publisher.targets.pelican.transport import OriginTimeouts, OriginTransport
from publisher.targets.pelican.upload import INCOMING, Own, Uploads
from publisher.targets.pelican.webdav import WebDavClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from publisher.targets.pelican.address import OriginAddress
    from publisher.targets.pelican.content import UploadContent
    from publisher.targets.pelican.propfind import DavEntry
    from publisher.targets.pelican.tokens import TokenSource

T = TypeVar("T")

_SOUND = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
"""Characters that XRootD takes for themselves in a path; it decodes a %3F before it looks for a query."""
_SMALL = 64 << 20  # bytes of an object that is read into memory


@dataclass(frozen=True)
class UploadOptions:
    """How the origin is reached.

    Attributes:
        tokens: what is shown to it.
        removing: what is shown for taking objects away; the same when None.
        hosts: ``host:port`` of the origins that a director may name; any when empty.
        authority: PEM file of a private authority, None for none.
        deadlines: how long things may take.
        patience: how often they are tried.
        proxies: as the environment has them: scheme -> URL.
        checksums: the origin is asked for its own as well.
        program: the ``pelican`` command that carries uploads; this program itself when None.
    """

    tokens: TokenSource = field(default_factory=NoTokens)
    removing: TokenSource | None = None
    hosts: frozenset[str] = frozenset()
    authority: Path | None = None
    deadlines: OriginTimeouts = field(default_factory=OriginTimeouts)
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    proxies: dict[str, str] = field(default_factory=dict, repr=False)
    checksums: bool = False
    program: str | None = None


class _UploadSlots:
    """One upload of a name at a time in this process: the others find it there.

    Among processes XRootD decides, and not sharply: it looks whether a name is taken before it renames, so that both of two
    uploads of the same bytes may be told that theirs was the one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken: set[str] = set()

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Wait for the name's turn."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._taken)
            self._taken.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._taken.discard(name)
                self._changed.notify_all()


_TURNS = _UploadSlots()


class PelicanOrigin(Origin):
    """The origin at ``address``; nothing is asked of it before the first use."""

    def __init__(self, address: OriginAddress, ways: UploadOptions, clock: Callable[[], float] = time.time) -> None:
        self.address = address
        self._clock = clock
        self._patience = ways.patience
        transport = OriginTransport(ways.deadlines, Proxies(ways.proxies), ways.authority)
        place = DirectEndpoint(address) if address.direct else DirectedEndpoint(transport, address, ways.hosts, ways.tokens)
        self._store = WebDavClient(transport, place, ways.tokens, ways.removing or ways.tokens)
        carrier = (
            Own()
            if ways.program is None
            else PelicanUpload(address, place, ways.tokens, ways.deadlines, ways.authority, program=ways.program)
        )
        self._uploads = Uploads(self._store, carrier, ways.patience, checksums=ways.checksums)
        self._line = OriginLoop(transport)

    def recover(self) -> list[str]:
        """See :meth:`Origin.recover`. What other hosts' runs left goes when it is a day old."""
        swept = self._line.run(self._uploads.sweep(self._clock()))
        return [f"swept a killed upload: {INCOMING}/{name} ({size} bytes)" for name, size in swept]

    def put(self, name: str, source: Path, *, sha256: str, size: int) -> bool:
        """See :meth:`Origin.put`."""
        return self._put(name, contents.of_file(source, sha256, size))

    def put_bytes(self, name: str, content: bytes) -> bool:
        """See :meth:`Origin.put_bytes`."""
        return self._put(name, contents.of_bytes(name, content))

    def replace(self, name: str, content: bytes) -> None:
        """See :meth:`Origin.replace`."""
        self._line.run(self._uploads.replace(_checked(name), contents.of_bytes(name, content)))

    def read(self, name: str) -> bytes | None:
        """See :meth:`Origin.read`."""
        return self._ask(partial(self._store.read, _checked(name), _SMALL))

    def size(self, name: str) -> int | None:
        """See :meth:`Origin.size`."""
        found = self._object(name)
        return None if found is None else found.size

    def modified(self, name: str) -> float | None:
        """See :meth:`Origin.modified`. To the second."""
        found = self._object(name)
        return None if found is None else found.modified

    def sha256(self, name: str) -> str | None:
        """See :meth:`Origin.sha256`."""
        found = self._object(name)
        return None if found is None else self._line.run(self._store.sha256(name, found.size, self._patience.run))

    def names(self, prefix: str = "") -> Iterator[str]:
        """See :meth:`Origin.names`. What no publisher can have stored, by its name, is passed over."""
        top = prefix.removesuffix("/") if prefix else ""
        return self._walk(_checked(top) if prefix else "")

    def remove(self, name: str) -> None:
        """See :meth:`Origin.remove`."""
        if self._object(name) is not None:
            self._ask(partial(self._store.delete, name))

    def _put(self, name: str, content: UploadContent) -> bool:
        with _TURNS.of(f"{self.address}/{_checked(name)}"):
            return self._line.run(self._uploads.put(name, content))

    def _object(self, name: str) -> DavEntry | None:
        found = self._ask(partial(self._store.stat, _checked(name)))
        return None if found is None or found.directory else found

    def _walk(self, directory: str) -> Iterator[str]:
        """Names in the order of ``str``: a directory sorts as its name with the ``/`` that follows it."""
        found = self._ask(partial(self._store.children, directory))
        below = f"{directory}/" if directory else ""
        keys = [
            f"{last}/" if entry.directory else last
            for last, entry in found.items()
            if _SOUND.fullmatch(last) and (below or last != INCOMING)
        ]
        for key in sorted(keys):
            if key.endswith("/"):
                yield from self._walk(f"{below}{key[:-1]}")
            else:
                yield f"{below}{key}"

    def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        return self._line.run(self._patience.run(question))


def _checked(name: str) -> str:
    """The name, if it is one that objects may have.

    Raises:
        OriginError: it is not.
    """
    parts = safepath.split(name, OriginError)
    if parts[0] == INCOMING:
        raise OriginError(f"unsafe name {name!r}: {INCOMING} is the origin's own")
    if not all(map(_SOUND.fullmatch, parts)):
        raise OriginError(
            f"unsafe name {name!r}: only letters, digits, dot, dash and underscore are taken as they are everywhere"
        )
    return name
