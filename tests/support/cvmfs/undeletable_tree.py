"""A published tree that cannot be deleted, which shows only when a transaction removes it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from publisher.targets.repositories.directory import DirectoryRepository
from tests.support.cvmfs.real import real_name
from tests.support.cvmfs.stand_in import own_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from publisher.targets.repositories.base import Repository

SAID = "Input/output error|Device or resource busy"
_RM = """#!/bin/sh
for last; do :; done
case $last in */{path}) {rm} -rf "$last/bin"; echo "rm: cannot remove '$last': Input/output error" >&2; exit 1 ;; esac
exec {rm} "$@"
"""


@contextlib.contextmanager
def undeletable(repository: Repository, path: str, where: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the tree at ``path`` undeletable for the block.

    In a directory repository it becomes a mount point; in CVMFS, ``rm`` deletes half of it and then reports an I/O error.
    """
    if isinstance(repository, DirectoryRepository):
        # A real CVMFS server's tests want the mounts of the host, and are run in the same process.
        reason = "a real cvmfs_server is" if real_name() is not None else own_mounts()
        if reason is not None:
            pytest.skip(f"a tree that is a mount point was NOT tried: {reason}")
        tree = repository.root / path
        subprocess.run(["mount", "-t", "tmpfs", "in the way", tree], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", tree], check=True)
        return
    programs = where / "programs"
    programs.mkdir()
    program = programs / "rm"
    program.write_text(_RM.format(path=path, rm=shutil.which("rm")))
    program.chmod(0o755)
    with patch.context() as patched:
        patched.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        yield
