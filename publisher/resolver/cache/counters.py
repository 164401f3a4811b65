"""Counters of the cache's hits, downloads and pulls, which many processes increment at once and no kill spoils.

``tally/hits`` has one byte for each hit, ``tally/fetched`` one line ``<count> <bytes> <milliseconds>`` for each download, with
the bytes that came from the network, and ``tally/pulled`` the same for each image that was pulled from a registry.
``tally/wanted`` has a line ``<count> <bytes> <copied>`` for each download: the size of the SIF, and the bytes of it that were
copied from others. Each addition is a single appending write, so no lock is needed.
"""

from __future__ import annotations

import os

_DIRECTORY, _HITS, _DOWNLOADS, _WANTED, _PULLS = "tally", "hits", "fetched", "wanted", "pulled"
_MAX_BYTES = 1 << 20  # of a file of lines; a larger one is summed up


class CacheCounters:
    """The counters of a cache since it was created.

    Attributes:
        hits: answers from the cache.
        downloads: finished downloads.
        bytes: their bytes from the network.
        seconds: their duration.
        wanted: the bytes of the SIFs that were downloaded, since this is counted.
        copied: those of them that were copied from other SIFs of this host.
        pulls: images that were pulled from registries.
        pulled_bytes: the bytes of their SIFs.
    """

    __slots__ = ("bytes", "copied", "downloads", "hits", "pulled_bytes", "pulls", "seconds", "wanted")

    def __init__(
        self,
        hits: int,
        downloads: int,
        size: int,
        seconds: float,
        *,
        wanted: int,
        copied: int,
        pulls: int,
        pulled_bytes: int,
    ) -> None:
        self.hits = hits
        self.downloads = downloads
        self.bytes = size
        self.seconds = seconds
        self.wanted = wanted
        self.copied = copied
        self.pulls = pulls
        self.pulled_bytes = pulled_bytes


def count_hit(root: str) -> None:
    """Count an answer from the cache in ``root``; do nothing if the counters cannot be written."""
    _append(root, _HITS, b".")


def count_download(root: str, wanted: int, seconds: float, *, received: int | None = None, copied: int = 0) -> None:
    """Count a download; do nothing if the counters cannot be written.

    Args:
        root: directory of the cache.
        wanted: size of the SIF in bytes.
        seconds: how long it took.
        received: bytes that came from the network; None for all of the SIF.
        copied: bytes that were copied from other SIFs of this host.
    """
    _append(root, _DOWNLOADS, f"1 {wanted if received is None else received} {seconds * 1000:.0f}\n".encode())
    _append(root, _WANTED, f"1 {wanted} {copied}\n".encode())


def count_pull(root: str, size: int, seconds: float) -> None:
    """Count an image that was pulled from a registry into a SIF of ``size`` bytes; do nothing if that cannot be written."""
    _append(root, _PULLS, f"1 {size} {seconds * 1000:.0f}\n".encode())


def read(root: str) -> CacheCounters:
    """Return the counters of the cache in ``root``."""
    try:
        hits = os.stat(_path(root, _HITS)).st_size
    except OSError:
        hits = 0
    count, size, milliseconds = _sum(root, _DOWNLOADS)
    _, wanted, copied = _sum(root, _WANTED)
    pulls, pulled_bytes, _ = _sum(root, _PULLS)
    return CacheCounters(
        hits, count, size, milliseconds / 1000, wanted=wanted, copied=copied, pulls=pulls, pulled_bytes=pulled_bytes
    )


def condense(root: str) -> None:
    """Sum up long lists. The caller holds the cache's lock; what is counted at this moment may be lost."""
    for name in (_DOWNLOADS, _WANTED, _PULLS):
        if _is_long(root, name):
            _rewrite(root, name, " ".join(map(str, _sum(root, name))) + "\n")


def _is_long(root: str, name: str) -> bool:
    try:
        return os.stat(_path(root, name)).st_size > _MAX_BYTES
    except OSError:
        return False


def _rewrite(root: str, name: str, content: str) -> None:
    from publisher.contract import files  # noqa: PLC0415 - a warm answer condenses nothing

    try:  # noqa: SIM105 - contextlib costs a warm answer a millisecond
        files.replace(_path(root, name), content.encode())
    except OSError:
        pass


def _sum(root: str, name: str) -> tuple[int, int, int]:
    """Return the sums of the three numbers of each line: for downloads and pulls their count, bytes and milliseconds."""
    count = size = milliseconds = 0
    try:
        with open(_path(root, name), "rb") as file:
            for line in file:
                words = line.split()
                if len(words) == 3 and all(word.isdigit() for word in words):  # noqa: PLR2004 - else a crash truncated the line
                    count, size, milliseconds = count + int(words[0]), size + int(words[1]), milliseconds + int(words[2])
    except OSError:
        pass
    return count, size, milliseconds


def _append(root: str, name: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        try:
            descriptor = os.open(_path(root, name), flags, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.join(root, _DIRECTORY), mode=0o700, exist_ok=True)
            descriptor = os.open(_path(root, name), flags, 0o644)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
    except OSError:
        pass


def _path(root: str, name: str) -> str:
    return os.path.join(root, _DIRECTORY, name)
