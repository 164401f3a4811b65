"""Places that files are read from: a directory (a mounted repository, an origin's disk), a URL, a federation.

A place is asked for names that our own manifest made; what it answers is somebody else's and is bounded, and checked by whoever
asked. What speaks to the network is imported when a place there is asked, which a warm answer does not do.
"""

from __future__ import annotations

import os
import time

from publisher.resolver.errors import AbsentError, CorruptError, FetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    from publisher.resolver.system.outage import Outage
    from publisher.resolver.transfer.watchdog import TransferDeadline

BUILTIN, PELICAN, AUTO = "builtin", "pelican", "auto"
_CHUNK = 1 << 20
FEDERATED = ("pelican://", "osdf://")
REMOTE = ("http://", "https://", *FEDERATED)


class NetworkOptions:
    """How the network is used.

    Attributes:
        root: directory in which what was learnt is remembered for other processes, None for nowhere.
        ca: file or directory of further authorities' certificates, empty for none.
        federation: host of the federation that ``osdf://`` means.
        slowest: bytes a second; a server that gives less is left for the next one, and a download's time follows from it.
        fetch_with: :data:`BUILTIN`; :data:`PELICAN`, the command instead; :data:`AUTO`, the command where nothing else helped.
        https_only: whether servers of a federation that speak plain http are left alone: for files that no signature vouches for.
        silence: seconds without a byte, or until a connection stands.
        tls: what all connections share, once there is one.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        ca: str = "",
        federation: str = "",
        slowest: float = 1_000_000,
        fetch_with: str = BUILTIN,
        silence: float = 20.0,
    ) -> None:
        self.root = root
        self.ca = ca
        self.federation = federation
        self.slowest = slowest
        self.fetch_with = fetch_with
        self.silence = silence
        self.https_only = False
        self.tls: ssl.SSLContext | None = None


class Source:
    """A place, or one way to it.

    Attributes:
        address: what it was given as, a directory's path or a URL.
        text: that, as it is said to others: without a query, since there may be a token in it.
        patience: seconds that one small file may take.
        local: whether asking costs nobody but this host.
        brings: whether it writes whole files by itself: ``bring``, not ``pieces``. Small ones are never brought.
        network: how the network is used.
        outage: the memory of its hanging, None for none.
        doubted: whether it is likely to hang: left alone where another place will do.
    """

    patience = 2.0
    local = True
    brings = False
    network = NetworkOptions()
    outage: Outage | None = None
    doubted = False

    def __init__(self, address: str) -> None:
        self.address = address
        self.text = address.partition("?")[0] if address.startswith(REMOTE) else address

    def ways(
        self, name: str, *, small: bool = False, fresh: bool = False, again: bool = False, until: float | None = None
    ) -> Iterator[Source]:
        """The ways to a file in this place, the best first: found out while they are tried, and at least one.

        Args:
            name: relative, with ``/``.
            small: only those that are quick to begin.
            fresh: only those that lead to the file as it is now, for one that changes.
            again: what is remembered of the ways did not help.
            until: reading of the monotonic clock at which nobody needs them any more.
        """
        del name, small, fresh, again, until  # there is but this one
        yield self

    def pieces(
        self, name: str, start: int, size: int | None, pace: TransferDeadline | None = None
    ) -> Iterator[bytes | memoryview]:
        """The content of a file from byte ``start`` on, piece by piece, each of which is good until the next one is asked for.

        Args:
            name: relative, with ``/``.
            start: byte to begin with; below ``size``.
            size: the whole file's, None where that is not known (then ``start`` is 0).
            pace: ends it when it takes too long; None for however long it takes.

        Raises:
            AbsentError, DeniedError, CorruptError: no such file, no right to read it, one of another size.
            FetchError: broken off or too slow; a body that merely ends early is not noticed here.
        """
        raise NotImplementedError

    def bring(self, name: str, size: int, pace: TransferDeadline, take: Callable[[str], None]) -> None:
        """Have a file written, and give its path to ``take``, which moves it away.

        Args:
            name: relative, with ``/``.
            size: the file's; more is not written.
            pace: ends it when it takes too long.
            take: is called in the end.

        Raises:
            FetchError: it is not to be had.
        """
        raise NotImplementedError

    def read(self, name: str, most: int, sha256: str | None = None, *, fresh: bool = False) -> bytes:
        """The content of a small file, by the first way that gives it.

        Args:
            name: relative, with ``/``.
            most: bytes beyond which it is refused.
            sha256: what it must have, None where that is not known.
            fresh: see :meth:`ways`.

        Raises:
            FetchError: absent, refused, broken off, too large or wrong, by every way.
        """
        problems: list[tuple[str, FetchError]] = []
        for way in self.ways(name, small=True, fresh=fresh, until=time.monotonic() + self.patience):
            try:
                return self._content(way, name, most, sha256)
            except FetchError as error:  # noqa: PERF203 - the next way is there for that
                problems.append((way.text, error))
        if len(problems) == 1:
            raise problems[0][1]
        raise failure("", problems)

    def _content(self, way: Source, name: str, most: int, sha256: str | None) -> bytes:
        content = b""
        for chunk in way.pieces(name, 0, None, self._pace()):
            content += chunk
            if len(content) > most:
                raise FetchError(f"{name} has more than the {most} bytes that it may have")
        if sha256 is not None:
            import hashlib  # noqa: PLC0415 - the index has none

            if hashlib.sha256(content).hexdigest() != sha256:
                raise CorruptError(f"{name}: other bytes than the index says")
        return content

    def _pace(self) -> TransferDeadline | None:
        """Of one way to a small file."""
        return None


class DirectorySource(Source):
    """A directory's files."""

    def pieces(self, name: str, start: int, size: int | None, pace: TransferDeadline | None = None) -> Iterator[bytes]:  # noqa: ARG002 - a file ends by itself
        """See :meth:`Source.pieces`."""
        try:
            with open(os.path.join(self.address, name), "rb", buffering=0) as file:
                file.seek(start)
                while chunk := file.read(_CHUNK):
                    yield chunk
        except FileNotFoundError as error:
            raise AbsentError(f"{name}: {error.strerror}") from None
        except OSError as error:
            raise FetchError(f"{name}: {error.strerror}") from None


def failure(what: str, problems: Sequence[tuple[str, FetchError]]) -> FetchError:
    """One error for those that several places had, of their kind if they all had the same: ``(place, error)`` of each."""
    kinds = {type(error) for _, error in problems}
    kind = kinds.pop() if len(kinds) == 1 else FetchError
    lines = dict.fromkeys(f"{text}: {error}" for text, error in problems)
    return kind(f"{what}{'; '.join(lines)}")
