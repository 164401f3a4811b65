"""What is looked for in directories that may hang, as one of a PATH may: each look is a child's, and has a deadline."""

from __future__ import annotations

import os
import time

from publisher.resolver.errors import FetchError
from publisher.resolver.system.deadline_fork import ForkedCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SYSTEM = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")  # where they hang nothing runs at all, so no child is needed
_PATH = "/usr/local/bin:/usr/bin:/bin"  # a batch system's environment may have none
_SEARCH = 2.0  # seconds


def existing(paths: Sequence[str], seconds: float, is_there: Callable[[str], bool] = os.path.exists) -> list[str]:
    """Of these paths, those that are there; one that hangs is not."""

    def look(path: str) -> ForkedCall:
        return ForkedCall(lambda: b"yes" if is_there(path) else b"")

    tries = [(path, look(path)) for path in paths]
    until = time.monotonic() + seconds
    return [path for path, attempt in tries if _says_yes(attempt, until)]


def program(names: Sequence[str], seconds: float = _SEARCH) -> str | None:
    """The path of the first of these programs along the PATH, None where there is none.

    The directories of the PATH have to be absolute: a job's own is never looked at. One that hangs is passed over after
    ``seconds``.
    """
    directories = [directory for directory in os.environ.get("PATH", _PATH).split(":") if directory.startswith("/")]
    doubtful, sure = [], None
    for directory in directories:
        paths = [os.path.join(directory, name) for name in names]
        if directory not in _SYSTEM:
            doubtful += paths
            continue
        sure = next(filter(_is_program, paths), None)
        if sure is not None:
            break
    found = existing(doubtful, seconds, _is_program)
    return found[0] if found else sure


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _says_yes(attempt: ForkedCall, until: float) -> bool:
    try:
        return bool(attempt.result(until))
    except FetchError:
        return False
