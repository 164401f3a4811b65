"""A small root file system with a few programs of this host and their libraries."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

from tests.support.images.layers import Entry, directory, file, symlink

_PROGRAMS = ("/bin/dash", "/usr/bin/env", "/usr/bin/cat", "/usr/bin/find", "/usr/bin/sleep")
_LIBRARY = re.compile(r"(/\S+) \(0x")


@cache
def runnable(*more: str) -> tuple[Entry, ...]:
    """Return the entries of a layer: ``/bin/sh``, ``env``, ``cat``, ``find`` and ``sleep`` under ``/bin``, with their libraries.

    Args:
        more: paths of further programs of this host.
    """
    programs = (*_PROGRAMS, *more)
    said = subprocess.run(["ldd", *programs], capture_output=True, check=True, text=True, timeout=60).stdout
    libraries = sorted(set(_LIBRARY.findall(said)))
    parents = {str(parent) for library in libraries for parent in Path(library).parents} - {"/"}
    entries = [directory(parent.lstrip("/")) for parent in sorted(parents | {"/bin"})]
    entries += [_copied(path, path.lstrip("/")) for path in libraries]
    entries += [_copied(path, f"bin/{Path(path).name}") for path in programs]
    return (*entries, symlink("bin/sh", "dash"))


def _copied(path: str, name: str) -> Entry:
    return file(name, Path(path).read_bytes(), mode=0o755)
