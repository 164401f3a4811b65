"""The publisher as a wheel and as a source archive, built from copies of the sources."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from ci.packaging.package import EPOCH

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE")
SDIST = "from setuptools import build_meta; build_meta.build_sdist('made')"


def make(output: Path) -> None:
    """Build both: no modification time, umask or stray file gets into them."""
    with tempfile.TemporaryDirectory() as scratch:
        tree, made = Path(scratch, "tree"), Path(scratch, "made")
        copy_sources(tree)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
        build = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-index", "--no-build-isolation"]
        subprocess.run([*build, "--wheel-dir", made, tree], env=environment, check=True)
        wheel = next(made.iterdir())
        store_wheel(wheel, output / wheel.name)
        shutil.rmtree(tree)
        copy_sources(tree)  # without what the build of the wheel left
        subprocess.run([sys.executable, "-c", SDIST], cwd=tree, env=environment, check=True, capture_output=True)
        sdist = next((tree / "made").iterdir())
        store_sdist(sdist, output / sdist.name)


def copy_sources(tree: Path) -> None:
    """Copy what the program is made from."""
    package = ROOT / "publisher"
    code = [*package.rglob("*.py"), package / "py.typed", *package.glob("page/templates/*"), *package.glob("page/assets/*")]
    for source in [*map(ROOT.joinpath, SOURCES), *code]:
        copy = tree / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        copy.chmod(0o644)


def store_wheel(wheel: Path, target: Path) -> None:
    """Write a wheel again without compression, whose result depends on the version of zlib, and in sorted order."""
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w") as copy:
        for name in sorted(source.namelist()):
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            copy.writestr(entry, source.read(name))


def store_sdist(sdist: Path, target: Path) -> None:
    """Write a source archive again in sorted order, with one date and owner, and as compressed blocks without compression."""
    with (
        tarfile.open(sdist) as source,
        target.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=0, fileobj=raw, mtime=int(EPOCH)) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as copy,
    ):
        for entry in sorted(source.getmembers(), key=lambda entry: entry.name):
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            entry.mtime, entry.mode, entry.pax_headers = int(EPOCH), 0o755 if entry.isdir() else 0o644, {}
            copy.addfile(entry, source.extractfile(entry) if entry.isfile() else None)
