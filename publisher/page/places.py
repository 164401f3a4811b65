"""The paths of the page's files, relative to its directory, with ``/``. Pure.

A name of an image ends in ``:tag``, and no directory of an image's page has a colon in its last part, so that no page is in the
place of another one's directory, whatever names the list has.
"""

from __future__ import annotations

import hashlib
from urllib.parse import quote

INDEX, HEALTH, FEED, IMAGES, STATUS = "index.html", "health.html", "feed.xml", "images.json", "data/status.js"
RUNNING = "data/running.js"
MOST_SHARDS = 64
"""Files that the rows of the table are spread over at most; a browser loads them all, a sync writes those that have changed."""
_ROWS_IN_SHARD = 256
_LONGEST = 200  # bytes of the last part of a name; file systems allow 255, with the ending and a temporary suffix


def image_path(name: str) -> str:
    """Return the path of an image's page, by its CVMFS name."""
    return f"image/{_file(name)}.html"


def badge_path(name: str) -> str:
    """Return the path of an image's badge, by its CVMFS name."""
    return f"badge/{_file(name)}.svg"


def shard_path(number: int) -> str:
    """Return the path of a shard of rows."""
    return f"data/images-{number:02}.js"


def shard_count(rows: int) -> int:
    """Return the number of shards for a number of rows: a power of two, so that it rarely changes."""
    count = 1
    while count < MOST_SHARDS and count * _ROWS_IN_SHARD < rows:
        count *= 2
    return count


def shard_number(name: str, shards: int) -> int:
    """Return the number of the shard, of so many, that has an image's row, by its CVMFS name."""
    return hashlib.sha256(name.encode()).digest()[0] % shards


def url(path: str) -> str:
    """Return a path as a relative URL. A colon in it is escaped: in front of one, a browser could read a scheme."""
    return quote(path)


def root_of(path: str) -> str:
    """Return the relative URL that leads from a file back to the page's directory, with ``/`` at its end, or empty."""
    return "../" * path.count("/")


def _file(name: str) -> str:
    """Return the name of a file without its ending; a name that is too long for file systems is replaced by its sha256."""
    if len(name.rpartition("/")[2].encode()) <= _LONGEST:
        return name
    return f".long/{hashlib.sha256(name.encode()).hexdigest()}"
