"""The pull of an image of a registry that no manifest lists: Apptainer makes a SIF of it, once for all jobs of this host's user.

Nobody's credentials are used, since the SIF is for all jobs: Apptainer gets an empty home directory and no variables but those of
the network. It works in the directory of an unfinished cache entry, so what it writes counts against the limits of the cache
while it runs, and is swept if it is killed. Nobody knows the size beforehand, so space is reserved step by step.
"""

from __future__ import annotations

import os
import time

from publisher.contract.errors import InvalidReferenceError
from publisher.contract.records import Sif
from publisher.resolver.cache import counters, eviction, trees
from publisher.resolver.errors import ArchitectureError, CacheSpaceError, FetchError, HostError, UnknownImageError
from publisher.resolver.system import child_program, log, path_probe
from publisher.resolver.transfer.hashing import FileHasher
from publisher.resolver.transfer.sif_header import HEADER_BYTES, SifHeader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.contract.errors import ExpectedError
    from publisher.resolver.cache.cache import Cache
    from publisher.resolver.config.settings import ResolverSettings

_SCHEMES = ("docker://", "oras://")
_APPTAINER = ("apptainer", "singularity")
_NETWORK_VARIABLES = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CONTAINERS_REGISTRIES_CONF"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
)
_FIRST_RESERVATION = 64 << 20  # bytes
_OVERLOADED = ("toomanyrequests", "rate limit")
_ABSENT = ("manifest unknown", "name unknown", "not a sif", "oras sif image")
_PRIVATE = ("authentication required", "unauthorized", "access denied", "is denied")
_NO_PLATFORM = ("no image found in", "no child with platform")
_FULL = ("no space left on device", "disk quota exceeded")
"""Words of Apptainer 1.4 and of registries, in lower case, by the kind of the failure."""


def is_pullable(url: str) -> bool:
    """Return whether a URL names an image of a registry."""
    return url.startswith(_SCHEMES)


def canonical(url: str) -> str:
    """Return the one spelling of a reference with ``docker://``; any other text unchanged. Raise InvalidReferenceError."""
    if not url.startswith(_SCHEMES[0]):
        return url
    from publisher.contract import reference  # noqa: PLC0415 - its patterns cost a millisecond

    return f"{_SCHEMES[0]}{reference.parse(url)}"


class ImagePull:
    """The pull of an image.

    Args:
        url: of the image, canonical.
        key: of the unfinished entry.
        cache: where it goes.
        settings: of the resolver.
    """

    def __init__(self, url: str, key: str, cache: Cache, settings: ResolverSettings) -> None:
        self._url = url
        self._key = key
        self._cache = cache
        self._settings = settings
        self._directory = cache.entries.part_path(key)
        self._reserved = 0

    def run(self, part: str, lock: int, until: float) -> Sif:
        """Pull the image.

        Args:
            part: path that the SIF gets.
            lock: descriptor of the locked lock file of the key.
            until: reading of the monotonic clock at which the SIF must be there.

        Raises:
            UnknownImageError, InvalidReferenceError, ArchitectureError: nobody can have this image here.
            HostError: this host has no Apptainer.
            FetchError: the registry failed, or the pull took too long.
            CacheSpaceError: there is not enough space, and everything in the cache is in use.
            OSError: the cache cannot be used.
        """
        apptainer = self._settings.apptainer or path_probe.find_program(_APPTAINER)
        if apptainer is None:
            raise HostError(f"{self._url} must be pulled, and this host has no Apptainer")
        trees.remove(self._directory)
        begun = time.monotonic()
        try:
            os.makedirs(self._directory, mode=0o700)
            self._reserve(lock)
            path = self._pull(apptainer, lock, until)
            sif = _describe(self._url, path)
            if sif.size > self._cache.limits().max_bytes:
                raise CacheSpaceError(f"{self._url} has {sif.size} bytes, more than the whole cache may have")
            os.rename(path, part)
        finally:
            eviction.release(lock)
            trees.remove(self._directory)
        counters.count_pull(self._cache.root, sif.size, time.monotonic() - begun)
        log.info("pulled %s in %.1f s", self._url, time.monotonic() - begun)
        return sif

    def _pull(self, apptainer: str, lock: int, until: float) -> str:
        """Return the path of the SIF that Apptainer made."""
        path = os.path.join(self._directory, "image.sif")
        argv = [apptainer, "pull", "--disable-cache", path, self._url]
        try:
            problem = child_program.run(argv, self._directory, until, self._environment(), lambda: self._reserve(lock))
        except TimeoutError as error:
            raise FetchError(f"{self._url}: {error}", hint="raise deadline, or ask the operator to publish the image") from None
        if problem:
            raise self._failure(problem)
        with open(path, "rb") as file:
            header = SifHeader.parse(file.read(HEADER_BYTES))
        if header is None:
            raise InvalidReferenceError(f"{self._url} is not an image that Apptainer can start")
        if header.arch != self._settings.arch.partition("/")[0]:
            raise ArchitectureError(f"{self._url} is for {header.arch}, but this machine is {self._settings.arch}")
        return path

    def _reserve(self, lock: int) -> None:
        """Reserve twice the space that the pull takes so far, by eviction if necessary. Raise CacheSpaceError."""
        limits = self._cache.limits()
        written = trees.size_on_disk(self._directory)
        if self._reserved and 2 * written <= self._reserved:
            return
        wanted = max(2 * written, min(_FIRST_RESERVATION, limits.max_bytes // 2))
        eviction.reserve(self._cache.entries, self._key, wanted, limits, lock)
        self._reserved = wanted

    def _environment(self) -> dict[str, str]:
        """Return the variables for Apptainer: all files that it writes or reads of its user are in the directory."""
        credentials, ca = os.path.join(self._directory, "credentials.json"), self._settings.ca
        with open(credentials, "w", encoding="ascii") as file:
            file.write("{}")
        own = ("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "APPTAINER_TMPDIR", "APPTAINER_CACHEDIR", "APPTAINER_CONFIGDIR")
        environ = {name: value for name, value in os.environ.items() if name in _NETWORK_VARIABLES}
        environ.update(dict.fromkeys(own, self._directory), APPTAINER_AUTHFILE=credentials)
        if ca:
            environ["SSL_CERT_DIR" if os.path.isdir(ca) else "SSL_CERT_FILE"] = ca
        if self._url.partition("://")[2].partition("/")[0] in self._settings.insecure_registries:
            environ["APPTAINER_NOHTTPS"] = "1"
        return environ

    def _failure(self, output: str) -> ExpectedError:
        """Return the error for what Apptainer said."""
        said = output.lower()

        def has(words: tuple[str, ...]) -> bool:
            return any(word in said for word in words)

        if has(_FULL):
            return CacheSpaceError(f"no space in the cache {self._cache.root} to pull {self._url}")
        if has(_OVERLOADED):
            return FetchError(f"{self._url}: the registry is asked too often", hint="ask the operator to publish the image")
        if has(_ABSENT):
            return UnknownImageError(f"{self._url} does not exist: {output}", hint="check its name and tag")
        if has(_PRIVATE):
            return UnknownImageError(
                f"{self._url} does not exist, or is not public: {output}",
                hint="check its name and tag; a private image must come with the job",
            )
        if has(_NO_PLATFORM):
            return ArchitectureError(f"{self._url} is not for this machine, {self._settings.arch}: {output}")
        return FetchError(f"{self._url} cannot be pulled: {output}")


def _describe(url: str, path: str) -> Sif:
    """Return the SIF in a file. Raise OSError if it cannot be read."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return Sif(url, FileHasher(file.fileno(), size).hexdigest(), size)
