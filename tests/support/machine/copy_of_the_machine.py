"""A copy of this machine's files, in which packages can be installed: changes are kept in memory and then forgotten."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_ENTER = """\
set -e
mount -t tmpfs -o size=1g none "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" "$1/root"
mount --rbind /dev "$1/root/dev"
mount -t proc proc "$1/root/proc"
mount --bind "$2" "$1/root/mnt"
cd /
exec chroot "$1/root" bash -e -c "$3"
"""


def run_in_a_copy(script: str, files: Path, scratch: Path) -> str:
    """Run a script of bash as root in a copy of this machine, without a network; return what it printed.

    Args:
        script: the commands; the first that fails ends it.
        files: directory that the script finds as ``/mnt``.
        scratch: an empty directory for the copy.
    """
    command = ["unshare", "--mount", "--net", "bash", "-c", _ENTER, "enter", str(scratch), str(files), script]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
