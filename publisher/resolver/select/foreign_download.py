"""The download of a foreign SIF: a file whose size and content nobody has signed, checked as far as that is possible."""

from __future__ import annotations

import hashlib
import time
import urllib.parse

from publisher.contract.errors import InvalidReferenceError
from publisher.contract.records import Sif
from publisher.resolver.cache import eviction
from publisher.resolver.errors import AbsentError, ArchitectureError, CacheSpaceError, FetchError, UnknownImageError
from publisher.resolver.transfer.open_source import network_options, open_source
from publisher.resolver.transfer.sif_header import HEADER_BYTES, SifHeader
from publisher.resolver.transfer.sources import combined_error, public_address
from publisher.resolver.transfer.watchdog import TransferDeadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO

    from publisher.resolver.cache.cache import Cache
    from publisher.resolver.config.settings import ResolverSettings
    from publisher.resolver.transfer.sources import Source

_SPACE_CHECK_INTERVAL = 16 << 20  # bytes between two checks of the free space


class _NotSifError(FetchError):
    """A file from one route that is not a SIF; another route may have the right one."""


class ForeignDownload:
    """A download of the SIF at a URL."""

    def __init__(self, url: str, path: str, cache: Cache, arch: str) -> None:
        """Prepare the download.

        Args:
            url: of the SIF.
            path: of the file that is written.
            cache: whose limits apply.
            arch: the architecture that the SIF must have, as Go names it.
        """
        self._url = url
        self._label = public_address(url)  # for messages
        self._path = path
        self._arch = arch
        self._root = cache.root
        self._limits = cache.limits()

    def run(self, settings: ResolverSettings, until: float) -> tuple[Sif, Source]:
        """Download the SIF by the first route that delivers a complete one.

        Args:
            settings: of the resolver.
            until: reading of the monotonic clock at which the download ends.

        Returns:
            The SIF, and the route.

        Raises:
            UnknownImageError, InvalidReferenceError: no route has the file, or all have something else. If the reasons differ,
                that of the last route counts, which is the origin.
            ArchitectureError: the SIF is for another architecture.
            FetchError: no route delivered the file in time.
            CacheSpaceError: there is not enough space.
            OSError: the file cannot be written.
        """
        base, mark, query = self._url.partition("?")
        directory, _, name = base.rpartition("/")
        name = urllib.parse.unquote(name)  # a source quotes the names of files, and the paths of a federation, itself
        if not self._url.startswith("http"):
            directory = urllib.parse.unquote(directory)
        problems: list[tuple[str, FetchError]] = []
        network = network_options(settings)
        network.https_only = True
        # "small" leaves out the command pelican, which can only fetch files of a known size
        for route in open_source(f"{directory}{mark}{query}", network).routes(name, small=True, until=until):
            try:
                return self._download(route, name, until), route
            except FetchError as error:  # noqa: PERF203 - the next route is there for that
                problems.append((route.label, error))
        failure = combined_error("cannot fetch the SIF: ", problems)
        if not all(isinstance(problem, (AbsentError, _NotSifError)) for _, problem in problems):
            raise failure
        if isinstance(problems[-1][1], _NotSifError):
            raise InvalidReferenceError(f"{self._label} is not a SIF", hint="check the URL in a browser")
        raise UnknownImageError(f"{self._label} does not exist: {failure}", hint="check the URL for a typing error")

    def _download(self, route: Source, name: str, until: float) -> Sif:
        """Write the file as one route delivers it, and stop as soon as it cannot be a SIF for this machine. Raise OSError."""
        size, checked, head, digest = 0, 0, b"", hashlib.sha256()
        deadline = TransferDeadline(time.monotonic, until, route.network.slowest)
        with open(self._path, "wb", buffering=0) as file:
            for chunk in route.stream(name, 0, None, deadline):
                if size == 0 or size - checked >= _SPACE_CHECK_INTERVAL:
                    checked = size
                    self._check_space(size)
                self._write(file, chunk)
                digest.update(chunk)
                size += len(chunk)
                if len(head) < HEADER_BYTES:
                    head += bytes(chunk[: HEADER_BYTES - len(head)])
                    if len(head) == HEADER_BYTES:
                        self._parse_header(head)
                deadline.add(len(chunk))
                problem = deadline.problem()
                if problem is not None:
                    raise FetchError(f"{name}: {problem}")
        end = self._parse_header(head).end
        if size < end:
            raise FetchError(f"{self._label} ended after {size} of {end} bytes")
        return Sif(self._label, digest.hexdigest(), size)

    def _parse_header(self, head: bytes) -> SifHeader:
        """Return the header of a SIF for this machine; raise FetchError or ArchitectureError if it is not one."""
        header = SifHeader.parse(head)
        if header is None:
            raise _NotSifError(f"{self._label} is not a SIF")
        if header.arch != self._arch.partition("/")[0]:
            raise ArchitectureError(f"{self._label} is for {header.arch}, but this machine is {self._arch}")
        return header

    def _check_space(self, size: int) -> None:
        """Raise CacheSpaceError if the file outgrows the free space: nothing is evicted for a file of unknown size."""
        if eviction.free_space(self._root) < self._limits.min_free or size > self._limits.max_bytes:
            raise self._space_error()

    def _write(self, file: FileIO, chunk: bytes | memoryview) -> None:
        from publisher.resolver.transfer.fetch import NO_SPACE_ERRNOS  # noqa: PLC0415 - a cached SIF needs no download

        view = memoryview(chunk)
        try:
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            if error.errno in NO_SPACE_ERRNOS:
                raise self._space_error() from None
            raise

    def _space_error(self) -> CacheSpaceError:
        return CacheSpaceError(
            f"no space in the cache {self._root} for {self._label}, whose size is unknown",
            hint="raise cache-size, lower cache-free",
        )
