"""A package for Debian and Ubuntu, made by dpkg-deb from a tree of files."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import TYPE_CHECKING

from ci.packaging.package import EPOCH

if TYPE_CHECKING:
    from pathlib import Path

    from ci.packaging.package import Package

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def make(package: Package, version: str, tree: Path, output: Path) -> None:
    """Make the package of a tree; the tree gets a directory DEBIAN for that time."""
    architecture = "all" if package.anywhere else ARCHITECTURES[platform.machine()]
    control = tree / "DEBIAN"
    control.mkdir(mode=0o755)
    fields = {
        "Package": package.name,
        "Version": version,
        "Architecture": architecture,
        "Maintainer": "The contributors of the OSPool image publisher <root@localhost>",
        "Section": "science",
        "Priority": "optional",
        "Depends": package.deb_depends,
        "Recommends": package.deb_recommends,
        "Description": f"{package.summary}\n {package.description}",
    }
    (control / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    if package.after_install:
        script = control / "postinst"
        script.write_text(f'#!/bin/sh\nset -e\nif [ "$1" = configure ]; then {package.after_install}; fi\n')
        script.chmod(0o755)
    target = output / f"{package.name}_{version}_{architecture}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(target)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH})
    for path in control.iterdir():
        path.unlink()
    control.rmdir()
