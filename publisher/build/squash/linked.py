"""The libraries that a program of this host is linked with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from publisher.errors import CommandError
from publisher.system import command

_DEADLINE = 60  # seconds


def library_path(program: str, name: str) -> str | None:
    """Return the path of a library (``libzstd``) that a program is linked with; None if there is none, or if ldd cannot tell."""
    path = shutil.which(program, path=command.environment()["PATH"])
    try:
        linked = command.run(["ldd", path or program], deadline=_DEADLINE).stdout.decode("utf-8", "replace")
    except CommandError:
        return None
    found = re.search(rf"{name}\.so\.\S+ => (\S+)", linked)
    return found[1] if found else None


def library_version(path: str | None) -> str:
    """Return the version of a library, from the name of its file: ``libzstd.so.1.5.4``; ``unknown`` if that is not known."""
    version = re.search(r"\.so\.([0-9.]+)$", Path(path).resolve().name) if path else None
    return version[1] if version else "unknown"
