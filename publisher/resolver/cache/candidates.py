"""Images of registries that jobs named although they are not published: what the operator might put on the list.

The file ``tally/candidates`` in a user's cache has a line ``<count> <image>`` for each job that got such an image. The startd's
cron, which may run as another user, adds up those of all users of the host.
"""

from __future__ import annotations

import os

from publisher.resolver.cache import user_reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = "tally/candidates"
_MAX_BYTES = 1 << 20  # of a file; a larger one is summed up
_MAX_IMAGES = 1000  # that are kept when it is summed up
_MAX_LENGTH = 300  # of a name, also of one that another user has written


def count(root: str, image: str) -> None:
    """Count a job that got an image which is not on the list; do nothing if the cache in ``root`` cannot be written."""
    user_reports.append(root, _NAME, f"1 {image}", 2 * _MAX_BYTES)


def total(caches: Iterable[tuple[int, str]]) -> list[tuple[str, int]]:
    """Return each image that is not on the list, and how many jobs got it, the most wanted first.

    Args:
        caches: user ID of the owner and directory of each cache.
    """
    found: dict[str, int] = {}
    for user, root in caches:
        for line in user_reports.read(root, _NAME, user, 3 * _MAX_BYTES).splitlines():
            number, _, image = line.partition(" ")
            if number.isascii() and number.isdigit() and 0 < len(image) <= _MAX_LENGTH and image.isprintable():
                found[image] = found.get(image, 0) + int(number)
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def condense(root: str) -> None:
    """Sum up a long file. The caller holds the cache's lock; what is counted at this moment may be lost."""
    from publisher.contract import files  # noqa: PLC0415 - a warm answer condenses nothing

    path = os.path.join(root, _NAME)
    try:
        if os.stat(path).st_size > _MAX_BYTES:
            kept = total([(os.geteuid(), root)])[:_MAX_IMAGES]
            files.replace(path, "".join(f"{number} {image}\n" for image, number in kept).encode())
    except OSError:
        pass
