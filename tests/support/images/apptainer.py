"""Images unpacked by Apptainer itself: the reference for trees and metadata.

As root only for layers that do no harm: its build writes through a layer's symbolic links onto the host.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.support.images.layers import tree_on_disk
from tests.support.publisher.host import run_as

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.images.layers import Node


def apptainers_tree(image: Path | str, where: Path, user: str | None = None) -> dict[bytes, Node] | None:
    """Return the tree of the sandbox that Apptainer builds, None if it refuses the image.

    Args:
        image: an OCI layout's directory, or ``docker://`` and a reference.
        where: an existing directory for the sandbox and temporary files.
        user: who builds, when we are root; None: we do.
    """
    place = where / "apptainer"
    place.mkdir()
    source = image if isinstance(image, str) else f"oci:{image}"
    if user is not None and os.geteuid() == 0:
        subprocess.run(["chown", f"{user}:", place], check=True)
    argv = ["env", f"APPTAINER_TMPDIR={place}", "apptainer", "--quiet", "build", "--sandbox", "--disable-cache"]
    done = run_as([*argv, str(place / "sandbox"), source], user, where)
    if done.returncode != 0:
        return None
    if os.geteuid() != 0:
        _open(place / "sandbox")
    return tree_on_disk(place / "sandbox")


def _open(sandbox: Path) -> None:
    """Make directories readable that have the mode of a file they replaced; the publisher gives them 0755."""
    for parent, directories, _ in os.walk(sandbox):
        for name in directories:
            path = os.path.join(parent, name)  # noqa: PTH118 - names that are no text
            if os.lstat(path).st_mode & 0o40500 == 0o40400:
                os.chmod(path, 0o755)  # noqa: PTH101, S103 - likewise; what everything published has
