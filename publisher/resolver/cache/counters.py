"""Counters of the cache's hits and downloads, which many processes increment at once and no kill spoils.

``tally/hits`` has one byte for each hit, ``tally/fetched`` one line ``<count> <bytes> <milliseconds>`` for each download. Each
addition is a single appending write, so no lock is needed.
"""

from __future__ import annotations

import os

_DIRECTORY, _HITS, _DOWNLOADS = "tally", "hits", "fetched"
_MAX_DOWNLOADS_BYTES = 1 << 20  # of the file of downloads; a larger one is summed up into one line


class CacheCounters:
    """The counters of a cache since it was created.

    Attributes:
        hits: answers from the cache.
        downloads: finished downloads.
        bytes: their bytes.
        seconds: their duration.
    """

    __slots__ = ("bytes", "downloads", "hits", "seconds")

    def __init__(self, hits: int, downloads: int, size: int, seconds: float) -> None:
        self.hits = hits
        self.downloads = downloads
        self.bytes = size
        self.seconds = seconds


def count_hit(root: str) -> None:
    """Count an answer from the cache in ``root``; do nothing if the counters cannot be written."""
    _append(root, _HITS, b".")


def count_download(root: str, size: int, seconds: float) -> None:
    """Count a download of ``size`` bytes; do nothing if the counters cannot be written."""
    _append(root, _DOWNLOADS, f"1 {size} {seconds * 1000:.0f}\n".encode())


def read(root: str) -> CacheCounters:
    """Return the counters of the cache in ``root``."""
    try:
        hits = os.stat(_path(root, _HITS)).st_size
    except OSError:
        hits = 0
    count, size, milliseconds = _sum_downloads(root)
    return CacheCounters(hits, count, size, milliseconds / 1000)


def condense(root: str) -> None:
    """Sum up a long list of downloads into one line. The caller holds the cache's lock; a download that ends now may be lost."""
    from publisher.contract import files  # noqa: PLC0415 - a warm answer condenses nothing

    path = _path(root, _DOWNLOADS)
    try:
        if os.stat(path).st_size > _MAX_DOWNLOADS_BYTES:
            files.replace(path, " ".join(map(str, _sum_downloads(root))).encode() + b"\n")
    except OSError:
        pass


def _sum_downloads(root: str) -> tuple[int, int, int]:
    """Return the number of downloads, their bytes and their milliseconds."""
    count = size = milliseconds = 0
    try:
        with open(_path(root, _DOWNLOADS), "rb") as file:
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
