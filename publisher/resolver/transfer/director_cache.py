"""A cache of a federation's answers, shared by all processes of a host: ``<root>/federation/<digest of the host>.json``."""

from __future__ import annotations

import hashlib
import json
import os

from publisher.contract import files
from publisher.resolver.system import negative_cache
from publisher.resolver.transfer.director_response import DirectorResponse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_BYTES = 1 << 18
_MAX_NAMESPACES = 50
_RESPONSE_LIFETIME, _DISCOVERY_LIFETIME = 900.0, 3600.0  # seconds, minus up to a quarter


class DirectorCache:
    """The cached answers of one federation. A failure to read or write counts as an empty cache.

    Args:
        root: the cache directory, None for no cache.
        host: host of the federation.
        now: seconds since the epoch.
    """

    def __init__(self, root: str | None, host: str, now: float) -> None:
        self._path = None if root is None else os.path.join(root, "federation", f"{host_digest(host)}.json")
        self._now = now
        self._content = self._read()

    def director(self) -> str | None:
        """Return the URL of the director, or None if it is not cached."""
        entry = self._content.get("director")
        return str(entry["url"]) if isinstance(entry, dict) and self._is_valid(entry, _DISCOVERY_LIFETIME) else None

    def set_director(self, url: str) -> None:
        """Cache the URL of the director."""
        self._content["director"] = {"url": url, "until": self._expiry(_DISCOVERY_LIFETIME)}
        self._write()

    def find(self, path: str, *, direct: bool, expired: bool = False) -> DirectorResponse | None:
        """Return the answer of the innermost namespace that covers a path, or None.

        Args:
            path: path of an object.
            direct: whether the answer shall name the origin rather than the caches.
            expired: accept an expired answer.
        """
        best: dict[str, Any] | None = None
        for entry in self._entries():
            covers = entry["direct"] == direct and f"{path}/".startswith(f"{entry['namespace']}/")
            if covers and (expired or self._is_valid(entry, _RESPONSE_LIFETIME)):
                best = entry if best is None or len(entry["namespace"]) > len(best["namespace"]) else best
        if best is None:
            return None
        private, issuers = bool(best["private"]), list(best["issuers"])
        return DirectorResponse(best["namespace"], list(best["servers"]), private=private, issuers=issuers)

    def add(self, response: DirectorResponse, *, direct: bool) -> None:
        """Cache an answer; it replaces the previous one of its namespace."""
        others = [entry for entry in self._entries() if (entry["namespace"], entry["direct"]) != (response.namespace, direct)]
        entry = {**vars(response), "direct": direct, "until": self._expiry(_RESPONSE_LIFETIME)}
        self._content["namespaces"] = [*others[-_MAX_NAMESPACES:], entry]
        self._write()

    def _entries(self) -> list[dict[str, Any]]:
        entries = self._content.get("namespaces", [])
        return [entry for entry in entries if _is_entry(entry)] if isinstance(entries, list) else []

    def _is_valid(self, entry: dict[str, Any], lifetime: float) -> bool:
        """Return whether an entry has not expired; one from too far in the future has, since the clock was set back then."""
        until = entry.get("until")
        return isinstance(until, (int, float)) and self._now < until <= self._now + lifetime

    def _expiry(self, lifetime: float) -> float:
        return self._now + lifetime * (1 - negative_cache.jitter() / 6)

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
                content = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def host_digest(host: str) -> str:
    """Return a digest of a federation's host that is safe in file names."""
    return hashlib.sha256(host.encode()).hexdigest()[:32]


def _is_entry(entry: object) -> bool:
    """Return whether a JSON value is a cached answer."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("namespace"), str)
        and isinstance(entry.get("direct"), bool)
        and all(_is_texts(entry.get(name)) for name in ("servers", "issuers"))
        and "private" in entry
    )


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
