"""How the cache did: counters that many processes add to at once, and that a kill does not spoil.

``tally/hits`` has a byte for each hit; ``tally/fetched`` a line for each download, ``<bytes> <milliseconds>``. Both are appended
to in one write, so nobody needs a lock.
"""

from __future__ import annotations

import os

_DIRECTORY = "tally"
_MOST_LINES = 1 << 20  # bytes of the file of downloads beyond which it is summed up into one line


class CacheCounters:
    """Since the cache was made: answers from it, downloads, their bytes and seconds."""

    __slots__ = ("bytes", "fetched", "hits", "seconds")

    def __init__(self, hits: int, fetched: int, size: int, seconds: float) -> None:
        self.hits = hits
        self.fetched = fetched
        self.bytes = size
        self.seconds = seconds


def hit(root: str) -> None:
    """Count an answer from the cache; where nothing can be written, nothing is counted."""
    _append(root, "hits", b".")


def fetched(root: str, size: int, seconds: float) -> None:
    """Count a download of ``size`` bytes."""
    _append(root, "fetched", f"1 {size} {seconds * 1000:.0f}\n".encode())


def counts(root: str) -> CacheCounters:
    """What was counted."""
    try:
        hits = os.stat(_path(root, "hits")).st_size
    except OSError:
        hits = 0
    times, size, milliseconds = _sums(root)
    return CacheCounters(hits, times, size, milliseconds / 1000)


def condense(root: str) -> None:
    """Keep the list of downloads short; the caller holds the cache's lock, and a download that ends now may go uncounted."""
    from publisher.contract import files  # noqa: PLC0415 - a warm answer condenses nothing

    path = _path(root, "fetched")
    try:
        if os.stat(path).st_size > _MOST_LINES:
            files.replace(path, " ".join(map(str, _sums(root))).encode() + b"\n")
    except OSError:
        pass


def _sums(root: str) -> tuple[int, int, int]:
    times = size = milliseconds = 0
    try:
        with open(_path(root, "fetched"), "rb") as file:
            for line in file:
                words = line.split()
                if len(words) == 3 and all(word.isdigit() for word in words):  # noqa: PLR2004 - else a line that a crash cut
                    times, size, milliseconds = times + int(words[0]), size + int(words[1]), milliseconds + int(words[2])
    except OSError:
        pass
    return times, size, milliseconds


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
