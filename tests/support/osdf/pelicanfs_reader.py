"""Reading with an independent client, pelicanfs, through a director; also a program: ``FEDERATION PATH…``."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def read(federation: str, paths: Iterable[str], authority: Path) -> dict[str, str]:
    """Return path in the federation -> sha256 of the content that pelicanfs reads."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, federation, *paths],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "SSL_CERT_FILE": str(authority)},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _main(federation: str, *paths: str) -> None:
    from pelicanfs import PelicanFileSystem  # noqa: PLC0415 - of the program alone

    system = PelicanFileSystem(f"pelican://{federation}")
    found = {path: hashlib.sha256(system.cat_file(path)).hexdigest() for path in paths}
    print(json.dumps(found))  # noqa: T201 - a program


if __name__ == "__main__":
    _main(*sys.argv[1:])
