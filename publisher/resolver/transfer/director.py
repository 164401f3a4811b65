"""What a Pelican federation says of where an object is: discovery, then its director, whose answer is not followed but read.

A director answers ``GET <path>`` with 307, the servers in the header ``Link`` in its order (``pri``), and the namespace in
``X-Pelican-Namespace``. Its answer holds for the namespace and is remembered a while, in ``<root>/federation/<host>.json``, so
that a host's jobs do not all ask. While it does not answer, what it said last is used.
https://docs.pelicanplatform.org, director/ of PelicanPlatform/pelican.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import urllib.parse

from publisher.contract import files
from publisher.resolver.errors import AbsentError, AccessDeniedError, FetchError
from publisher.resolver.system import negative_cache
from publisher.resolver.transfer import http
from publisher.resolver.transfer.watchdog import TransferDeadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.client import HTTPResponse
    from typing import Any, TypeVar

    from publisher.resolver.transfer.sources import NetworkOptions

    T = TypeVar("T")

_DISCOVERY = "/.well-known/pelican-configuration"
_MOST_BYTES = 1 << 16  # of a discovery's answer, or of the memory
_HOLDS, _DISCOVERY_HOLDS = 900.0, 3600.0  # seconds that an answer is remembered, less up to a quarter
_TRIES = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0  # seconds
_ONE = 10.0  # seconds for one answer
_MOST_SERVERS, _MOST_NAMESPACES = 20, 50
_REDIRECTS = (200, 302, 307)
_REBOOTED = 429


class DirectorError(FetchError):
    """The director's answer is of no use for this path, which says nothing of other paths or of the director."""


class DirectorResponse:
    """A director's answer.

    Attributes:
        namespace: below which it holds, ``/ospool/ap20``.
        servers: URLs of servers, in the director's order; an object's path goes behind.
        private: whether reading needs a token.
    """

    def __init__(self, namespace: str, servers: list[str], *, private: bool) -> None:
        self.namespace = namespace
        self.servers = servers
        self.private = private


class Director:
    """Of one federation.

    Args:
        host: the federation's, with a port if need be.
        network: how the network is used.
        sleep: waits so many seconds.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        host: str,
        network: NetworkOptions,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._host = host
        self._key = f"director-{_digest(host)}"  # of failures.py
        self._network = network
        self._sleep = sleep
        self._clock = clock

    def find(self, path: str, *, direct: bool, again: bool = False, until: float | None = None) -> DirectorResponse:
        """Where an object is.

        Args:
            path: the object's, in the federation.
            direct: its origin, rather than the caches.
            again: what is remembered is not enough.
            until: reading of the monotonic clock at which nobody needs it any more.

        Raises:
            AbsentError: the federation has no such namespace, or the namespace no such object.
            AccessDeniedError: refused.
            DirectorError: an answer, and none that can be used.
            FetchError: no answer.
        """
        memory = _DirectorCache(self._network.root, self._host, self._clock())
        known = memory.find(path, direct=direct)
        if known is not None and not again:
            return known
        try:
            found = self._ask(memory, path, direct=direct, again=again, until=until)
        except (AbsentError, AccessDeniedError):
            raise
        except FetchError:
            late = memory.find(path, direct=direct, late=True)
            if late is None:
                raise
            return late
        memory.add(found, direct=direct)
        return found

    def _ask(self, memory: _DirectorCache, path: str, *, direct: bool, again: bool, until: float | None) -> DirectorResponse:
        """As :meth:`find`, but for what is remembered of answers; what is remembered of failures counts unless ``again``."""
        root, now = self._network.root, self._clock()
        failed = None if root is None or again else negative_cache.recent(root, self._key, now)
        if failed is not None:
            raise FetchError(f"not asked again yet: {failed}")
        tries = 1 if again else _TRIES
        query = "?directread" if direct else ""
        try:
            url = memory.director() or self._discovered(memory, tries, until)
            address = f"{url}{urllib.parse.quote(path)}{query}"
            found = self._patiently(address, tries, until, lambda response: _directed(response, path))
        except (AbsentError, AccessDeniedError, DirectorError):
            raise
        except FetchError as error:
            if root is not None and (until is None or time.monotonic() < until):  # else only this job's time was over
                negative_cache.note(root, self._key, str(error), now)
            raise
        if root is not None:
            negative_cache.forget(root, self._key)
        return found

    def _discovered(self, memory: _DirectorCache, tries: int, until: float | None) -> str:
        def read(response: HTTPResponse) -> str:
            if response.status != 200:  # noqa: PLR2004 - success
                raise FetchError(f"is no federation: status {response.status} {response.reason}")
            try:
                url = json.loads(response.read(_MOST_BYTES))["director_endpoint"]
            except (ValueError, LookupError, TypeError):
                url = None
            if not isinstance(url, str) or not url.startswith("https://"):
                raise FetchError("is no federation's configuration")
            return url.rstrip("/")

        url = self._patiently(f"https://{self._host}{_DISCOVERY}", tries, until, read)
        memory.set_director(url)
        return url

    def _patiently(self, address: str, tries: int, until: float | None, read: Callable[[HTTPResponse], T]) -> T:
        """What ``read`` makes of the answer. What may pass is asked for again, a few times and with growing pauses.

        Raises:
            FetchError: see :meth:`find`.
        """
        pause = _FIRST_PAUSE
        for number in range(1, tries + 1):
            left = _ONE if until is None else min(_ONE, until - time.monotonic())
            try:
                pace = TransferDeadline(time.monotonic, time.monotonic() + left)
                with http.got(address, self._network, pace=pace, follow=address.endswith(_DISCOVERY)) as response:
                    wait = _wait(response)
                    if wait is None:
                        return read(response)
                    error = FetchError(f"status {response.status} {response.reason}")
            except (AbsentError, AccessDeniedError):
                raise
            except FetchError as problem:
                error, wait = problem, 0.0
            wait = max(wait, pause * negative_cache.jitter())
            is_last = number == tries or isinstance(error, DirectorError)
            if is_last or (until is not None and time.monotonic() + wait > until):
                raise type(error)(f"{urllib.parse.urlsplit(address).netloc}: {error}")
            self._sleep(wait)
            pause = min(_LONGEST_PAUSE, 2 * pause)
        raise AssertionError  # the loop ends otherwise


def _wait(response: HTTPResponse) -> float | None:
    """Seconds to wait before it is asked again, None for an answer to be taken as it is.

    A 404 counts from a director alone: one that starts stands behind a proxy that says 404 for it.
    """
    said = response.headers.get("Retry-After", "")
    wait = min(float(said), _LONGEST_PAUSE) if said.isascii() and said.isdigit() else 0.0
    if response.status == _REBOOTED or response.status >= 500:  # noqa: PLR2004 - its own faults
        return wait
    is_director = response.headers.get("Server", "").startswith("pelican/") or "json" in response.headers.get("Content-Type", "")
    return wait if response.status == 404 and not is_director else None  # noqa: PLR2004 - not found


def _directed(response: HTTPResponse, path: str) -> DirectorResponse:
    if response.status not in _REDIRECTS:
        error = http.status_error(response.status, response.reason)
        raise error if isinstance(error, (AbsentError, AccessDeniedError)) else DirectorError(str(error))
    quoted = urllib.parse.quote(path)
    links = response.headers.get_all("Link") or [f"<{response.headers.get('Location', '')}>"]
    servers = []
    for url in _links(", ".join(links)):
        base = url.partition("?")[0]
        for end in (quoted, path):
            if base.startswith(("https://", "http://")) and base.endswith(end):
                servers.append(base[: -len(end)])
                break
    if not servers:
        raise DirectorError("names no server")
    said = _fields(response.headers.get("X-Pelican-Namespace", ""))
    namespace = said.get("namespace", "").rstrip("/")
    if not namespace.startswith("/") or not f"{path}/".startswith(f"{namespace}/"):
        namespace = path  # an answer that does not say what it holds for holds for the object
    return DirectorResponse(
        namespace, list(dict.fromkeys(servers))[:_MOST_SERVERS], private=said.get("require-token", "").lower() == "true"
    )


def _links(header: str) -> Iterator[str]:
    """The targets of a header ``Link`` (RFC 8288), those with the lowest ``pri`` first, else in order."""
    found = []
    for part in header.split("<")[1:]:
        url, _, rest = part.partition(">")
        priority = _fields(rest.replace(";", ",")).get("pri", "").strip('"')
        found.append((int(priority) if priority.isascii() and priority.isdigit() else len(header), url))
    yield from (url for _, url in sorted(found, key=lambda pair: pair[0]))


def _fields(text: str) -> dict[str, str]:
    """``a=1, b=2``."""
    pairs = (part.partition("=") for part in text.split(","))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


class _DirectorCache:
    """What a federation said, for all processes of the host. What cannot be read or written is not remembered."""

    def __init__(self, root: str | None, host: str, now: float) -> None:
        self._path = None if root is None else os.path.join(root, "federation", f"{_digest(host)}.json")
        self._now = now
        self._content = self._read()

    def director(self) -> str | None:
        entry = self._content.get("director")
        return str(entry["url"]) if isinstance(entry, dict) and self._holds(entry, _DISCOVERY_HOLDS) else None

    def set_director(self, url: str) -> None:
        self._content["director"] = {"url": url, "until": self._until(_DISCOVERY_HOLDS)}
        self._write()

    def find(self, path: str, *, direct: bool, late: bool = False) -> DirectorResponse | None:
        """What holds for a path: the innermost namespace's answer. ``late``: also when its time is over."""
        best: dict[str, Any] | None = None
        for entry in self._entries():
            covers = entry["direct"] == direct and f"{path}/".startswith(f"{entry['namespace']}/")
            if covers and (late or self._holds(entry, _HOLDS)):
                best = entry if best is None or len(entry["namespace"]) > len(best["namespace"]) else best
        return None if best is None else DirectorResponse(best["namespace"], list(best["servers"]), private=bool(best["private"]))

    def add(self, found: DirectorResponse, *, direct: bool) -> None:
        others = [entry for entry in self._entries() if (entry["namespace"], entry["direct"]) != (found.namespace, direct)]
        mine = {**vars(found), "direct": direct, "until": self._until(_HOLDS)}
        self._content["namespaces"] = [*others[-_MOST_NAMESPACES:], mine]
        self._write()

    def _entries(self) -> list[dict[str, Any]]:
        entries = self._content.get("namespaces", [])
        return [entry for entry in entries if _is_entry(entry)] if isinstance(entries, list) else []

    def _holds(self, entry: dict[str, Any], longest: float) -> bool:
        until = entry.get("until")
        return isinstance(until, (int, float)) and self._now < until <= self._now + longest  # a clock that was set back counts

    def _until(self, longest: float) -> float:
        return self._now + longest * (1 - negative_cache.jitter() / 6)

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            files.replace(self._path, json.dumps(self._content).encode())
        except OSError:
            pass

    def _read(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            with open(self._path, "rb") as file:
                content = json.loads(file.read(_MOST_BYTES * 4))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("namespace"), str)
        and isinstance(entry.get("direct"), bool)
        and isinstance(entry.get("servers"), list)
        and all(isinstance(server, str) for server in entry["servers"])
        and "private" in entry
    )
