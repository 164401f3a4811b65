"""Looking for files and programs in directories that may hang: child processes look, with a deadline."""

from __future__ import annotations

import os
import time

from publisher.resolver.errors import FetchError
from publisher.resolver.system.deadline_fork import ForkedCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SYSTEM_DIRECTORIES = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")  # if these hang nothing runs at all, so no child is needed
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"  # the environment of a batch system may have no PATH
_TIMEOUT = 2.0  # seconds


def existing_paths(paths: Sequence[str], seconds: float, exists: Callable[[str], bool] = os.path.exists) -> list[str]:
    """Return those of ``paths`` that exist, tested by ``exists``; a path that hangs for ``seconds`` counts as absent."""

    def start(path: str) -> ForkedCall:
        return ForkedCall(lambda: b"yes" if exists(path) else b"")

    calls = [(path, start(path)) for path in paths]
    until = time.monotonic() + seconds
    return [path for path, call in calls if _is_yes(call, until)]


def find_program(names: Sequence[str], seconds: float = _TIMEOUT) -> str | None:
    """Return the path of the first of several programs on the PATH, or None if there is none.

    Only absolute directories of the PATH count, so that the directory of a job is never searched. A directory that hangs is
    skipped after ``seconds``.
    """
    directories = [directory for directory in os.environ.get("PATH", _DEFAULT_PATH).split(":") if directory.startswith("/")]
    may_hang, system_program = [], None
    for directory in directories:
        paths = [os.path.join(directory, name) for name in names]
        if directory not in _SYSTEM_DIRECTORIES:
            may_hang += paths
            continue
        system_program = next(filter(_is_program, paths), None)
        if system_program is not None:
            break
    programs = existing_paths(may_hang, seconds, _is_program)
    return programs[0] if programs else system_program


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _is_yes(call: ForkedCall, until: float) -> bool:
    try:
        return bool(call.result(until))
    except FetchError:
        return False
