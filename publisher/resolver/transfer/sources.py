"""Sources that files are read from: a directory (a mounted repository, the disk of an origin), a URL, a Pelican federation.

A source is asked for names from our own manifest. Its answers are untrusted: their size is limited, and the caller checks them.
Modules that use the network are imported when a source in the network is asked, which a warm answer does not do.
"""

from __future__ import annotations

import os
import time

from publisher.resolver.errors import AbsentError, CorruptError, FetchError, ReadError, is_broken
from publisher.resolver.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    from publisher.resolver.system.outage import Outage
    from publisher.resolver.transfer.watchdog import TransferDeadline

BUILTIN, PELICAN, AUTO = "builtin", "pelican", "auto"
_CHUNK = 1 << 20  # bytes
FEDERATED = ("pelican://", "osdf://")
REMOTE = ("http://", "https://", *FEDERATED)


def public_address(text: str) -> str:
    """Return a URL without what may be secret: user, password, query and fragment. Any other text is returned unchanged."""
    scheme, mark, rest = text.partition("://")
    host, slash, path = rest.partition("?")[0].partition("#")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" if mark else text


class NetworkOptions:
    """How the network is used.

    Attributes:
        root: cache directory that shares what was learnt with other processes, None for none.
        ca: file or directory of further certificates, empty for none.
        federation: host of the federation of ``osdf://`` URLs.
        slowest: minimum speed of a server in bytes a second; the time limit of a download follows from it as well.
        token_issuers: pairs of a federation (``host`` or ``host/prefix``) and the URL of an issuer whose tokens it gets.
        fetch_with: :data:`BUILTIN`; :data:`PELICAN` for the command pelican; :data:`AUTO` for the command if nothing else worked.
        https_only: whether servers of a federation with plain http are refused: for files that no signature protects.
        silence: seconds without a byte, or until a connection is established, after which a request fails.
        round_trip: the fewest seconds that a connection took to be established; 0 before the first one.
        tls: the TLS context of all connections, None until the first one.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        ca: str = "",
        federation: str = "",
        slowest: float = 1_000_000,
        fetch_with: str = BUILTIN,
        token_issuers: Sequence[tuple[str, str]] = (),
        silence: float = 20.0,
    ) -> None:
        self.root = root
        self.ca = ca
        self.federation = federation
        self.slowest = slowest
        self.fetch_with = fetch_with
        self.token_issuers = tuple(token_issuers)
        self.silence = silence
        self.https_only = False
        self.round_trip = 0.0
        self.tls: ssl.SSLContext | None = None

    def issuers(self, host: str, path: str) -> set[str]:
        """Return the issuers whose tokens the site allows to be sent for a path of the federation ``host``."""
        if {".", ".."} & set(path.split("/")):
            return set()  # a server may read such a path as another one
        return {issuer for place, issuer in self.token_issuers if f"{host}{path}/".startswith(f"{place}/")}


class Source:
    """A source of files, or one route to a source.

    Attributes:
        address: the path of a directory or the URL, as configured.
        label: the address for messages: without its query, which may have a token.
        timeout: seconds that one small file may take.
        local: whether reading needs nothing but this host.
        downloads_itself: whether it writes whole files with :meth:`download` and has no :meth:`stream`; never for small files.
        uses_token: whether requests have a token, so that what comes is not for everybody.
        network: how the network is used.
        outage: remembers that the source hangs, None for none.
        suspected_hang: whether the source is likely to hang; it is avoided if another one can be used.
    """

    timeout = 2.0
    local = True
    downloads_itself = False
    uses_token = False
    network = NetworkOptions()
    outage: Outage | None = None
    suspected_hang = False

    def __init__(self, address: str) -> None:
        self.address = address
        self.label = public_address(address)

    def routes(
        self, name: str, *, small: bool = False, fresh: bool = False, refresh: bool = False, until: float | None = None
    ) -> Iterator[Source]:
        """Yield the routes to a file, best first, at least one; later ones are discovered when they are needed.

        Args:
            name: relative path of the file, with ``/``.
            small: yield only routes that start quickly.
            fresh: yield only routes without a cache, for a file that changes.
            refresh: do not rely on cached answers about the routes.
            until: reading of the monotonic clock after which the routes are not needed any more.
        """
        del name, small, fresh, refresh, until  # there is only this one
        yield self

    def stream(
        self,
        name: str,
        start: int,
        size: int | None,
        deadline: TransferDeadline | None = None,
        stop: int | None = None,
    ) -> Iterator[bytes | memoryview]:
        """Yield the content of a file in pieces; each piece is valid until the next one is requested.

        Args:
            name: relative path of the file, with ``/``.
            start: first byte to yield; below ``size``.
            size: size of the whole file, None if it is unknown (then ``start`` is 0).
            deadline: ends a slow transfer; None for no limit.
            stop: the byte behind the last one to yield; None for the end of the file.

        Raises:
            AbsentError: there is no such file.
            AccessDeniedError: this host may not read it.
            CorruptError: the file has another size.
            RangeError: the server sends another range; with ``stop`` also if it sends the whole file.
            FetchError: the transfer broke off or was too slow. A body that merely ends early is not noticed here.
        """
        raise NotImplementedError

    def keep_connections(self) -> None:
        """Use one connection for all requests until :meth:`close`, if it needs a connection."""

    def close(self) -> None:
        """Close what :meth:`keep_connections` keeps open."""

    def download(self, name: str, size: int, deadline: TransferDeadline, adopt: Callable[[str], None]) -> None:
        """Write a whole file and hand its path to ``adopt``.

        Args:
            name: relative path of the file, with ``/``.
            size: size of the file; a larger one is not written.
            deadline: ends a slow transfer.
            adopt: moves the finished file away.

        Raises:
            FetchError: the file could not be fetched.
        """
        raise NotImplementedError

    def read(self, name: str, max_bytes: int, sha256: str | None = None, *, fresh: bool = False) -> bytes:
        """Return the content of a small file, by the first route that works.

        Args:
            name: relative path of the file, with ``/``.
            max_bytes: maximum size of the file.
            sha256: expected digest, None if it is unknown.
            fresh: see :meth:`routes`.

        Raises:
            FetchError: every route failed: the file is absent, denied, truncated, too large or wrong.
        """
        problems: list[tuple[str, FetchError]] = []
        for route in self.routes(name, small=True, fresh=fresh, until=time.monotonic() + self.timeout):
            try:
                content = self._read_route(route, name, max_bytes, sha256)
            except FetchError as error:  # noqa: PERF203 - the next route is tried
                log.info("%s failed: %s", route.label, error)
                problems.append((route.label, error))
            else:
                log.debug("read %s (%d bytes) from %s", name, len(content), route.label)
                return content
        if len(problems) == 1:
            raise problems[0][1]
        raise combined_error("", problems)

    def _read_route(self, route: Source, name: str, max_bytes: int, sha256: str | None) -> bytes:
        """Return the content of a small file from one route."""
        content = b""
        for chunk in route.stream(name, 0, None, self._route_deadline()):
            content += chunk
            if len(content) > max_bytes:
                raise FetchError(f"{name} has more than the allowed {max_bytes} bytes")
        if sha256 is not None:
            import hashlib  # noqa: PLC0415 - the index has none

            if hashlib.sha256(content).hexdigest() != sha256:
                raise CorruptError(f"{name}: the content does not match its sha256 in the index")
        return content

    def _route_deadline(self) -> TransferDeadline | None:
        """Return the deadline for reading a small file from one route."""
        return None


class DirectorySource(Source):
    """A directory of files."""

    def stream(
        self,
        name: str,
        start: int,
        size: int | None,  # noqa: ARG002 - a file ends by itself
        deadline: TransferDeadline | None = None,  # noqa: ARG002 - as above
        stop: int | None = None,
    ) -> Iterator[bytes]:
        """Yield the content of a file; see :meth:`Source.stream`."""
        try:
            with open(os.path.join(self.address, name), "rb", buffering=0) as file:
                position = file.seek(start)
                while piece := file.read(_CHUNK if stop is None else min(_CHUNK, stop - position)):
                    position += len(piece)
                    yield piece
        except FileNotFoundError as error:
            raise AbsentError(f"{name}: {error.strerror}") from None
        except OSError as error:
            raise (ReadError if is_broken(error) else FetchError)(f"{name}: {error.strerror}") from None


def combined_error(prefix: str, problems: Sequence[tuple[str, FetchError]]) -> FetchError:
    """Return one error for the failures of several sources: of their class if they all have the same, else a FetchError.

    Args:
        prefix: beginning of the message.
        problems: label and error of each source.
    """
    kinds = {type(error) for _, error in problems}
    kind = kinds.pop() if len(kinds) == 1 else FetchError
    lines = dict.fromkeys(f"{label}: {error}" for label, error in problems)
    return kind(f"{prefix}{'; '.join(lines)}")
