"""A real SIF of a few files, made without the publisher."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from publisher.build.sif import DATA_OFFSET, write_sif_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def small_sif(scratch: Path, files: Mapping[str, bytes]) -> bytes:
    """Return a SIF with these files (relative path -> content), and a read-only directory ``locked`` with a link in it."""
    tree, path = scratch / "tree", scratch / "image.sif"
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    (tree / "locked").mkdir()
    (tree / "locked" / "link").symlink_to("../nowhere")
    (tree / "locked").chmod(0o555)
    squashed = scratch / "image.squashfs"
    command: list[str | Path] = ["mksquashfs", tree, squashed, "-all-root", "-quiet", "-no-progress"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(bytes(DATA_OFFSET) + squashed.read_bytes())
    write_sif_header(path, architecture="amd64", identity=b"0" * 16, epoch=0)
    return path.read_bytes()
