"""How often the cache had what was wanted. Counters are files that only grow, so a kill loses at most its own count.

``tally/hits`` has a byte for each hit. ``tally/misses`` and ``tally/evictions`` have eight for each, its size. Appending so
little is one write(2), which needs no lock.
"""

from __future__ import annotations

import os

HITS, MISSES, EVICTIONS = "hits", "misses", "evictions"
_NUMBER = 8  # bytes


def hit(root: str) -> None:
    """Count a SIF that was there."""
    _append(root, HITS, b".")


def count(root: str, what: str, size: int) -> None:
    """Count a SIF of so many bytes that came (:data:`MISSES`) or went (:data:`EVICTIONS`)."""
    _append(root, what, size.to_bytes(_NUMBER, "little"))


def hits(root: str) -> int:
    """SIFs that were there."""
    return len(_read(root, HITS))


def counted(root: str, what: str) -> tuple[int, int]:
    """How many were counted, and their bytes together."""
    content = _read(root, what)
    number = len(content) // _NUMBER
    numbers = (content[at * _NUMBER : (at + 1) * _NUMBER] for at in range(number))
    return number, sum(int.from_bytes(one, "little") for one in numbers)


def _append(root: str, what: str, content: bytes) -> None:
    """What cannot be counted is no reason to withhold an image."""
    path = os.path.join(root, "tally", what)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(path, flags, 0o644)
        except FileNotFoundError:
            os.mkdir(os.path.dirname(path), 0o700)
            descriptor = os.open(path, flags, 0o644)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
    except OSError:
        pass


def _read(root: str, what: str) -> bytes:
    try:
        with open(os.path.join(root, "tally", what), "rb") as file:
            return file.read()
    except OSError:
        return b""
