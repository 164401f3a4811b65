"""The libraries that a program of this host is linked with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from publisher.errors import CommandError
from publisher.system import command

_DEADLINE = 60  # seconds
_UNKNOWN = "unknown"


def library_path(program: str, name: str) -> str:
    """Return the path of a library (``libzstd``) that a program is linked with.

    Raises:
        CommandError: it is not linked with such a library, or that cannot be found out.
    """
    path = shutil.which(program, path=command.environment()["PATH"])
    linked = command.run(["ldd", path or program], deadline=_DEADLINE).stdout.decode("utf-8", "replace")
    found = re.search(rf"{name}\.so\.\S+ => (\S+)", linked)
    if found is None:
        raise CommandError(f"{program} is not linked with {name}")
    return found[1]


def library_version(program: str, name: str) -> str:
    """Return the version of such a library, from the name of its file: ``libzstd.so.1.5.4``; ``unknown`` if that is not known."""
    try:
        path = library_path(program, name)
    except CommandError:
        return _UNKNOWN
    version = re.search(r"\.so\.([0-9.]+)$", Path(path).resolve().name)
    return version[1] if version else _UNKNOWN
