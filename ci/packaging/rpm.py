"""A package for EL9, made by rpmbuild from a tree of files and ``package.spec``."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from ci.packaging.package import EPOCH, Package

SPEC = Path(__file__).with_name("package.spec")
REPRODUCIBLE = {
    "_buildhost": "localhost",
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "source_date_epoch_from_changelog": "0",
    "_binary_payload": "w1.gzdio",
}
"""Without these, name and time of the building machine are in the package."""
UNCHANGED = {"__os_install_post": "%{nil}", "debug_package": "%{nil}", "_build_id_links": "none"}
"""The files are packed as they are, also on a machine whose rpmbuild would strip, compress and link them."""


def make(package: Package, version: str, tree: Path, output: Path) -> None:
    """Make the package of a tree."""
    architecture = "noarch" if package.anywhere else platform.machine()
    with tempfile.TemporaryDirectory() as scratch:
        values = {
            **REPRODUCIBLE,
            **UNCHANGED,
            "_topdir": scratch,
            "_rpmdir": f"{scratch}/made",
            "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
            "tree": str(tree),
            "package_name": package.name,
            "package_version": version,
            "package_summary": package.summary,
            "package_description": package.description,
            "package_requires": package.rpm_requires,
            "package_post": package.after_install or "%{nil}",
            "package_files": f"{scratch}/files",
        }
        Path(scratch, "files").write_text(files(tree))
        options = [word for name, value in values.items() for word in ("--define", f"{name} {value}")]
        command = ["rpmbuild", "-bb", "--quiet", "--target", f"{architecture}-linux", *options, str(SPEC)]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "HOME": scratch}
        )
        if done.returncode != 0:
            raise SystemExit(f"ci/release: rpmbuild failed: {done.stdout}{done.stderr}")
        for made in Path(scratch, "made").glob("*.rpm"):
            shutil.copyfile(made, output / made.name)


def files(tree: Path) -> str:
    """Return the list of the package's files for rpmbuild: those directories are its own that carry its name."""
    lines = []
    for path in sorted(tree.rglob("*")):
        place = f"/{path.relative_to(tree)}"
        if path.is_symlink() or not path.is_dir():
            lines.append(f'"{place}"')
        elif any(part in ("ospool-image-publisher", "image-resolver") for part in path.relative_to(tree).parts):
            lines.append(f'%dir "{place}"')
    return "".join(f"{line}\n" for line in lines)
